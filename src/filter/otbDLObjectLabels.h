/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLObjectLabels_h
#define otbDLObjectLabels_h

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \class CellMeasure
 * \brief How large pixels are on the ground, by row.
 * \ingroup OTBTorch
 */
struct CellMeasure
{
  bool known = false; ///< in metres; else a pixel is 1 x 1
  bool byRow = false; ///< geographic: as below, with an entry a row, an edge more of \a across
  double area = 1.;
  double horizontal = 1.;      ///< length of the upper edge of a pixel
  double vertical = 1.;        ///< of its left edge
  std::vector<double> areas;   ///< of the pixels of a row
  std::vector<double> across;  ///< edges between row y - 1 and row y
  std::vector<double> heights; ///< left edges of a row
};

/** That of a raster: from the unit of its projection, on the ellipsoid row by row for longitude and latitude.
 * \throw Error when the file cannot be read */
CellMeasure MeasureCells(const std::string& raster);

/** What is known of an object. */
struct ObjectStatistics
{
  std::int32_t cell = 0;
  std::int64_t pixels = 0;
  std::int64_t horizontalEdges = 0;
  std::int64_t verticalEdges = 0;
  double area = 0.;      ///< where it goes by row
  double perimeter = 0.; ///< likewise
  double scoreSum = 0.;
  double scoreMax = 0.;
  std::int64_t scores = 0; ///< pixels that have one

  void Add(const ObjectStatistics& other);
};

/** \class ObjectLabels
 * \brief Connected sets of pixels of one code, from rows that come twice: first AddRow() for all and Finish(), then LabelRow() for all.
 *
 * Runs of a row are joined with those of the row before (union-find). What an object is made of, and whether it is kept, is settled in the first row that it
 * no longer reaches; so statistics are held for objects that are growing or kept, and 4 bytes for each set begun, which is what joins runs again at the
 * second time.
 *
 * A hole is a maximal set of background pixels that reaches neither the border of the image nor no-data, connected in the sense opposite to that of objects
 * (8 where those are 4-connected), all of whose neighbours in that sense are of one object. By the Euler number of its runs it is seen to surround nothing;
 * then its neighbours are connected, and so of one object as soon as they have one code.
 * \ingroup OTBTorch
 */
class ObjectLabels
{
public:
  struct Rules
  {
    bool eightConnected = false;
    double minimum = 0.; ///< smaller objects are dropped
    double fill = 0.;    ///< holes up to it are filled
    bool inPixels = true;
  };

  ObjectLabels(std::int64_t width, std::int64_t height, const Rules& rules, const CellMeasure& measure);

  void AddRow(std::int64_t y, const std::int32_t* cells, const double* scores);
  void Finish();
  /** 0: of no object; else 1.. in the order of the first pixels of objects, row by row. */
  void LabelRow(const std::int32_t* cells, std::int32_t* ids);

  std::int32_t Objects() const { return static_cast<std::int32_t>(m_Objects.size()); }
  const ObjectStatistics& Object(std::int32_t id) const { return m_Components[m_Objects[id - 1]]; }
  std::int64_t TooSmall() const { return m_TooSmall; }
  std::int64_t HolesFilled() const { return m_HolesFilled; }
  double AreaOf(const ObjectStatistics& s) const { return m_Measure.byRow ? s.area : static_cast<double>(s.pixels) * m_Measure.area; }
  double PerimeterOf(const ObjectStatistics& s) const;

private:
  struct Run
  {
    std::int32_t x0, x1, cell;
    std::uint32_t label;
  };
  struct Component : ObjectStatistics
  {
    std::int64_t lastRow = 0;
    bool settled = false;
    // Of background alone:
    bool open = false;
    std::int32_t ring = 0; ///< cell of its neighbours; -1: several
    std::uint32_t neighbour = 0;
    std::int64_t euler = 0;
  };

  void Split(const std::int32_t* cells);
  template <typename TMeet, typename TNew>
  void Attach(TMeet meet, TNew makeNew);
  std::uint32_t Root(std::uint32_t label);
  Component& Of(std::uint32_t label);
  void Unite(std::uint32_t a, std::uint32_t b);
  std::uint32_t NewLabel(std::int32_t cell, std::int64_t y);
  void Release(std::uint32_t slot);
  void Surround(const Run& a, const Run& b);
  void Settle(std::int64_t y);
  double SizeOf(const ObjectStatistics& s) const { return m_Rules.inPixels ? static_cast<double>(s.pixels) : AreaOf(s); }

  std::int64_t m_Width;
  std::int64_t m_Height;
  Rules m_Rules;
  const CellMeasure& m_Measure;
  std::vector<Run> m_Before;
  std::vector<Run> m_Now;
  /// Of each label: that of one it was joined to, always a lower one; or, marked, where its statistics are. After Finish(): the number of its object.
  std::vector<std::uint32_t> m_Labels;
  std::uint32_t m_NextLabel = 0;
  std::deque<Component> m_Components;
  std::vector<std::uint32_t> m_Free;
  std::vector<std::uint32_t> m_Objects;
  std::int64_t m_TooSmall = 0;
  std::int64_t m_HolesFilled = 0;
};

} // namespace dl
} // namespace otb

#endif

/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLSeriesPreparation_h
#define otbDLSeriesPreparation_h

#include "otbDLModelContract.h"
#include "otbDLPredictor.h"
#include "otbDLSeries.h"

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace otb
{
namespace dl
{

/** Everything that comes with a run beside the model. */
struct SeriesSetup
{
  std::vector<Series> sensors; ///< il, il2, il3, il4
  std::vector<std::string> fixedBands;
  std::vector<std::optional<double>> fixedNoData; ///< one a fixed band
  std::optional<double> maskNoData;               ///< of the mask of the whole, as its file declares it: left out as 0 is
  std::int64_t width = 0;                         ///< of the image, pixels
  std::int64_t height = 0;
  /// Latitude and longitude (degrees) of a position in pixels, (0, 0) being the centre of the first pixel. Thread-safe; may be empty when no input wants it.
  std::function<std::pair<float, float>(double, double)> latLon;
};

/** Pixels made ready for the network, but for where they go in its batch. */
struct PreparedPixels
{
  struct Input
  {
    std::vector<float> values;       ///< [pixel][step][band], scaled; of a static input [pixel][band]
    std::vector<std::uint8_t> valid; ///< [pixel][group of bands][step]
  };
  std::vector<Input> inputs;         ///< one an argument of the network
  std::vector<std::uint8_t> valid;   ///< is there data?
  std::vector<std::uint16_t> counts; ///< [series][pixel]: valid dates
  std::size_t pixels = 0;
};

/** \class SeriesPreparation
 * \brief From raw series to what a network wants to see: bands chosen by name, invalid dates found, gaps filled, values scaled, steps padded, dates encoded.
 *
 * All of it is a function of a pixel (or window) and the contract; nothing depends on what is prepared together. Immutable: safe from several threads.
 * The rules are those of doc/model-contract.md, "Time series".
 * \ingroup OTBTorch
 */
class SeriesPreparation
{
public:
  /** \throw Error for what cannot work together: a sensor or a band that is missing, a number of dates that the model cannot take */
  SeriesPreparation(const ModelContract& contract, SeriesSetup setup);

  /** The contract, with the number of steps of each input settled. */
  const ModelContract& Contract() const { return m_Contract; }

  /** Names of the sensors whose valid dates are counted: those the model uses. */
  const std::vector<std::string>& CountedSensors() const { return m_CountedNames; }

  /** Dates of the longest series. */
  std::size_t CountedDates() const;

  /** Is a band of a sensor used? For a reader. */
  bool UsesBand(std::size_t sensor, std::size_t band) const;

  /** Bytes of a prepared pixel. */
  std::size_t BytesPerPixel() const;

  /** The dates that an input sees (not those of padding). For logs. */
  const std::vector<Day>& StepDates(std::size_t input) const;

  void Allocate(PreparedPixels& pixels, std::size_t count) const;

  /** Prepares pixels of one row of a block.
   * \param columns their columns, in the block
   * \param row in the block
   * \param first where the first of them goes in `out` */
  void PrepareRow(const SeriesBlock& block, const std::vector<std::ptrdiff_t>& columns, std::ptrdiff_t row, PreparedPixels& out, std::size_t first) const;

  /** Writes `count` prepared pixels, from `first` on, to row y of slot n, columns x and on. */
  void WriteRow(const PreparedPixels& from, std::size_t first, std::size_t count, std::vector<BatchView>& inputs, int n, std::ptrdiff_t y,
                std::ptrdiff_t x) const;

  /** Writes what a slot holds once: dates, months, position, and whether dates are valid when the network is told by date.
   * \param validPixels [input][step]: pixels of the slot where the step is valid; of inputs of role valid by date alone
   * \param pixels of the slot
   * \param x, y position of the centre of the slot in the image, pixels */
  void WriteSample(const std::vector<std::vector<int>>& validPixels, int pixels, double x, double y, std::vector<BatchView>& inputs, int n) const;

  /** Adds the valid steps of prepared pixels to validPixels. */
  void CountValid(const PreparedPixels& from, std::size_t first, std::size_t count, std::vector<std::vector<int>>& validPixels) const;

  std::int64_t Width() const { return m_Setup.width; }
  std::int64_t Height() const { return m_Setup.height; }

private:
  /** The bands that an input takes from one sensor. */
  struct Group
  {
    int sensor = -1; ///< index in m_Setup.sensors; -1: static; absent when the sensor has no dates
    bool absent = false;
    bool required = true;
    int counted = -1;          ///< index in counts, or -1
    std::vector<int> source;   ///< band of the sensor (or static image)
    std::vector<int> channels; ///< of the input
    std::vector<float> noData; ///< [date][channel]; NaN: none
    std::vector<std::uint8_t> hasNoData;

    /** Does it have dates that can be valid or not? */
    bool Seen() const { return sensor >= 0 && !absent; }
  };
  /** What must be known of an input. */
  struct Plan
  {
    std::vector<Group> groups;
    std::vector<int> groupOf;                      ///< [band]; of a derived band that of its first operand
    bool separate = false;                         ///< do groups keep their validity for themselves?
    std::vector<Day> steps;                        ///< dates that the network sees
    std::vector<Day> dates;                        ///< common dates of the groups; empty when they differ
    std::vector<float> low, high, offset, divisor; ///< [step][band]
    std::vector<float> encoded;                    ///< dates, month
    int lead = 0;                                  ///< padded steps before the first
  };

  void PlanSeries(std::size_t k);
  void PlanStatic(std::size_t k);
  Group MakeGroup(const ModelInput& input, int sensor, const std::vector<int>& channels, const std::vector<int>& source);
  void LoadGroup(const Group& group, const ModelInput& input, const SeriesBlock& block, const std::vector<std::ptrdiff_t>& columns, std::ptrdiff_t row,
                 std::vector<float>& values, std::vector<std::uint8_t>& valid) const;
  static void Put(const Group& group, const float* from, float* step);
  int PutUnseen(const Plan& plan, std::size_t g, std::size_t x, std::size_t C, float* values, std::uint8_t* flags) const;
  int FillGroup(const ModelInput& in, const Plan& plan, std::size_t g, std::size_t judge, std::size_t x, float* values, std::uint8_t* flags) const;
  void FinishPixel(const ModelInput& in, const Plan& plan, float* values, const std::uint8_t* flags) const;
  void PrepareSeries(std::size_t k, const SeriesBlock& block, const std::vector<std::ptrdiff_t>& columns, std::ptrdiff_t row, PreparedPixels& out,
                     std::size_t first) const;
  void PrepareStatic(std::size_t k, const SeriesBlock& block, const std::vector<std::ptrdiff_t>& columns, std::ptrdiff_t row, PreparedPixels& out,
                     std::size_t first) const;

  ModelContract m_Contract;
  SeriesSetup m_Setup;
  std::vector<Plan> m_Plans;         ///< one an input
  std::vector<int> m_CountedSensors; ///< ascending
  std::vector<std::string> m_CountedNames;
  std::vector<std::vector<std::uint8_t>> m_Used; ///< [sensor][band]
};

} // namespace dl
} // namespace otb

#endif

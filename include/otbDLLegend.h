/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLLegend_h
#define otbDLLegend_h

#include "otbDLModelContract.h"

#include <cstdint>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** A colour, each part 0..255. */
struct Colour
{
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
  std::uint8_t alpha = 255; ///< 0: not seen

  /** "#rrggbb" */
  std::string Hex() const;

  bool operator==(const Colour& other) const { return red == other.red && green == other.green && blue == other.blue && alpha == other.alpha; }
};

/** \class Legend
 * \brief What the values of a map mean and how they are drawn: classes with names and colours, or a ramp. A value.
 *
 * Colours that nobody chose are told apart by colour-blind readers: the palette of Okabe and Ito (2008), the ramps inferno and viridis (matplotlib, CC0).
 * \ingroup OTBTorch
 */
struct Legend
{
  enum class Kind
  {
    None,    ///< the map has no legend
    Classes, ///< each entry is a class
    Ramp     ///< entries are stops, colours between them are interpolated
  };

  struct Entry
  {
    double value = 0.;
    std::string label; ///< of a stop: empty, its number is shown
    Colour colour;
  };

  Kind kind = Kind::None;
  int band = 1;                ///< that is drawn
  std::vector<Entry> entries;  ///< ascending by value
  std::vector<double> unshown; ///< values of a ramp's band that are not drawn
};

/** 0 no change (not drawn), 1 change.
 * \param classes those of value 0 and 1 give their names, if they have one, and the second its colour */
Legend BinaryLegend(const std::vector<ModelClass>& classes = {});

/** Classes of a map, in their own colours or in default ones.
 * \param classes colours as RRGGBB or empty; of values that come twice the first counts */
Legend ClassLegend(const std::vector<ModelClass>& classes);

/** Codes 0 (no change, not drawn) and 1 + i K + j, named "from -> to". A change has three quarters of the colour of the class it led to, and a quarter of that
 * it came from.
 * \param before, after K classes each
 * \param within has the map changes i -> i within a class? */
Legend FromToLegend(const std::vector<ModelClass>& before, const std::vector<ModelClass>& after, bool within);

enum class RampColours
{
  Inferno, ///< evidence of change
  Viridis  ///< anything else
};

/** A ramp of nine stops, evenly spaced. \throw Error unless low < high, both finite */
Legend RampLegend(double low, double high, RampColours colours);

/** -log10 p from 0 to 4, named by p. */
Legend PValueLegend();

} // namespace dl
} // namespace otb

#endif

/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLPredictor_h
#define otbDLPredictor_h

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** \class BatchView
 * \brief A batch of patches, or of pixels, in someone else's memory: element (n, c, y, x) is data[n * strideN + c * strideC + y * strideY + x * strideX],
 * that of time step t lies t * strideT further. An axis that the tensor has not got has the stride 0 and one element.
 * \ingroup OTBTorch
 */
struct BatchView
{
  float* data = nullptr;
  int channels = 0;
  std::ptrdiff_t strideN = 0;
  std::ptrdiff_t strideC = 0;
  std::ptrdiff_t strideY = 0;
  std::ptrdiff_t strideX = 0;
  int steps = 1; ///< of time
  std::ptrdiff_t strideT = 0;

  float* At(std::ptrdiff_t n, std::ptrdiff_t c, std::ptrdiff_t y, std::ptrdiff_t x) const
  {
    return data + n * strideN + c * strideC + y * strideY + x * strideX;
  }
};

/** \class Predictor
 * \brief A network behind a few calls. The shape of a batch never changes.
 *
 * Not thread-safe: one caller, which fills Input(), calls Run(), reads Output().
 * What a slot of the batch gives must not depend on the other slots.
 * \ingroup OTBTorch
 */
class Predictor
{
public:
  virtual ~Predictor() = default;

  /** Patches (or pixels) in a batch: slots to fill. */
  virtual int BatchSize() const = 0;

  /** Slots that one forward of the network takes. A batch is one or several of them. */
  virtual int CallSize() const = 0;

  /** Memory of argument k of the network, to be filled with scaled values. Integers and masks are given as float, and converted. */
  virtual BatchView Input(int k) = 0;

  /** Told where the upper left pixel of slot n lies in the whole image (beyond its border where patches are mirrored), before Run(). For what is keyed on
   * the pixel: random numbers. */
  virtual void Place(int /*n*/, std::int64_t /*x*/, std::int64_t /*y*/) {}

  /** Runs the network on the first `filled` slots: ceil(filled / CallSize()) forwards.
   * \throw Error when it fails */
  virtual void Run(int filled) = 0;

  /** Number of outputs. */
  virtual int Outputs() const = 0;

  /** Output k of the last Run(), of the input's height and width. Valid until the next one. Of an output that is not used (role aux): no data. */
  virtual BatchView Output(int k) = 0;
};

/** \class DifferentiablePredictor
 * \brief A predictor whose first output can be differentiated with respect to its first input.
 * \ingroup OTBTorch
 */
class DifferentiablePredictor : public Predictor
{
public:
  /** Memory of the probe e, of the shape of output 0. */
  virtual BatchView Probe() = 0;

  /** After Run(filled): the product of e and the Jacobian, d <e, output 0> / d input 0, slot by slot. Shape of input 0; valid until the next call. May be
   * called several times after a Run(), with other probes. \throw Error when the network cannot be differentiated */
  virtual BatchView Pullback() = 0;
};

} // namespace dl
} // namespace otb

#endif

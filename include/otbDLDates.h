/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#ifndef otbDLDates_h
#define otbDLDates_h

#include "otbDLModelContract.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace otb
{
namespace dl
{

/** A date: days since 1970-01-01 in the Gregorian calendar. */
using Day = std::int32_t;

/** \param month 1..12 \param day 1..31. Must be a date that exists. */
Day MakeDay(int year, int month, int day);

/** Month of a date, 0..11. */
int MonthIndex(Day day);

/** 1 on January 1st. */
int DayOfYear(Day day);

/** YYYY-MM-DD */
std::string ToString(Day day);

/** Reads YYYYMMDD or YYYY-MM-DD, years 1900 to 2199; nothing for any other text, or a date that does not exist. */
std::optional<Day> ParseDate(const std::string& text);

/** The first date (YYYYMMDD or YYYY-MM-DD, not part of a longer number) in a file's name, its folder not looked at. */
std::optional<Day> DateInName(const std::string& path);

/** Dates of a text, one a line, as they come. Empty lines and what follows a # are passed over.
 * \param option, origin for the message
 * \throw Error for a line that is no date, a date that comes twice (all of them named), or no date at all */
std::vector<Day> ParseDates(const std::string& text, const std::string& option, const std::string& origin);

/** The regular dates of a gap filling onto a grid. Months and days without a year are put into the year that overlaps most with [first, last].
 * \param spec with GapFill::Grid and dates that are valid */
std::vector<Day> RegularDates(const TemporalSpec& spec, Day first, Day last);

/** What a network is told of its time steps, one value a date.
 * \param dates ascending */
std::vector<float> EncodeDates(const DateEncoding& encoding, const std::vector<Day>& dates);

} // namespace dl
} // namespace otb

#endif

/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

#include "otbDLDates.h"

#include "otbDLError.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

namespace otb
{
namespace dl
{

namespace
{

struct Civil
{
  int year;
  int month;
  int day;
};

bool Leap(int year)
{
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

int DaysInMonth(int year, int month)
{
  static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return days[month - 1] + (month == 2 && Leap(year) ? 1 : 0);
}

bool Exists(int year, int month, int day)
{
  return year >= 1900 && year < 2200 && month >= 1 && month <= 12 && day >= 1 && day <= DaysInMonth(year, month);
}

/** Years are counted from March, so that the day that comes and goes is the last one; 400 years make an era of 146097 days. */
constexpr int daysOfEra = 146097;
constexpr int epoch = 719468; ///< 1970-01-01, from 0000-03-01

Civil CivilOf(Day day)
{
  const int z = day + epoch;
  const int era = (z >= 0 ? z : z - daysOfEra + 1) / daysOfEra;
  const int inEra = z - era * daysOfEra;
  const int yearOfEra = (inEra - inEra / 1460 + inEra / 36524 - inEra / 146096) / 365;
  const int inYear = inEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100);
  const int fromMarch = (5 * inYear + 2) / 153;
  const int month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9;
  return {yearOfEra + era * 400 + (month <= 2), month, inYear - (153 * fromMarch + 2) / 5 + 1};
}

int Digits(const std::string& text, std::size_t at, std::size_t count)
{
  return std::atoi(text.substr(at, count).c_str());
}

bool AllDigits(const std::string& text)
{
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

std::string Trimmed(const std::string& text)
{
  const auto space = [](unsigned char c) { return std::isspace(c) != 0; };
  const auto begin = std::find_if_not(text.begin(), text.end(), space);
  const auto end = std::find_if_not(text.rbegin(), std::string::const_reverse_iterator(begin), space).base();
  return {begin, end};
}

} // namespace

Day MakeDay(int year, int month, int day)
{
  const int y = month <= 2 ? year - 1 : year;
  const int era = (y >= 0 ? y : y - 399) / 400;
  const int yearOfEra = y - era * 400;
  const int inYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
  return era * daysOfEra + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + inYear - epoch;
}

int MonthIndex(Day day)
{
  return CivilOf(day).month - 1;
}

int DayOfYear(Day day)
{
  return day - MakeDay(CivilOf(day).year, 1, 1) + 1;
}

std::string ToString(Day day)
{
  const Civil c = CivilOf(day);
  char text[32];
  std::snprintf(text, sizeof text, "%04d-%02d-%02d", c.year, c.month, c.day);
  return text;
}

std::optional<Day> ParseDate(const std::string& text)
{
  int year = 0, month = 0, day = 0;
  if (text.size() == 8 && AllDigits(text))
  {
    year = Digits(text, 0, 4);
    month = Digits(text, 4, 2);
    day = Digits(text, 6, 2);
  }
  else if (text.size() == 10 && text[4] == '-' && text[7] == '-' && AllDigits(text.substr(0, 4) + text.substr(5, 2) + text.substr(8, 2)))
  {
    year = Digits(text, 0, 4);
    month = Digits(text, 5, 2);
    day = Digits(text, 8, 2);
  }
  return Exists(year, month, day) ? std::optional<Day>(MakeDay(year, month, day)) : std::nullopt;
}

std::optional<Day> DateInName(const std::string& path)
{
  const std::string name = path.substr(path.find_last_of('/') + 1);
  const auto digitAt = [&name](std::size_t i) { return i < name.size() && std::isdigit(static_cast<unsigned char>(name[i])); };
  for (std::size_t i = 0; i < name.size(); ++i)
  {
    if (i > 0 && digitAt(i - 1))
    {
      continue;
    }
    for (const std::size_t length : {std::size_t(8), std::size_t(10)})
    {
      const auto date = !digitAt(i + length) ? ParseDate(name.substr(i, length)) : std::nullopt;
      if (date)
      {
        return date;
      }
    }
  }
  return std::nullopt;
}

std::vector<Day> ParseDates(const std::string& text, const std::string& option, const std::string& origin)
{
  std::vector<Day> dates;
  std::map<Day, int> lines;
  std::string twice;
  std::istringstream in(text);
  int number = 0;
  for (std::string line; std::getline(in, line);)
  {
    ++number;
    if (number == 1 && line.rfind("\xef\xbb\xbf", 0) == 0)
    {
      line.erase(0, 3); // the mark that some editors put before UTF-8
    }
    const std::string word = Trimmed(line.substr(0, line.find('#')));
    if (word.empty())
    {
      continue;
    }
    const auto date = ParseDate(word);
    if (!date)
    {
      throw Error(Complaint(option, "\"" + word.substr(0, 40) + "\" in line " + std::to_string(number) + " of " + origin, "a date, YYYYMMDD or YYYY-MM-DD",
                            "One date a line; what follows a # is a comment."));
    }
    const auto [before, fresh] = lines.emplace(*date, number);
    if (!fresh)
    {
      twice += (twice.empty() ? "" : ", ") + ToString(*date) + " in lines " + std::to_string(before->second) + " and " + std::to_string(number);
    }
    dates.push_back(*date);
  }
  if (!twice.empty())
  {
    throw Error(Complaint(option, twice + " of " + origin, "each date once", "Merge the images of that date first."));
  }
  if (dates.empty())
  {
    throw Error(Complaint(option, "no date in " + origin, "a date a line", ""));
  }
  return dates;
}

std::vector<Day> RegularDates(const TemporalSpec& spec, Day first, Day last)
{
  const auto at = [](const std::string& monthDay, int year)
  {
    const int month = Digits(monthDay, 0, 2);
    return MakeDay(year, month, std::min(Digits(monthDay, 3, 2), DaysInMonth(year, month)));
  };
  Day begin = 0, end = -1;
  if (spec.gridStart.size() == 10)
  {
    begin = ParseDate(spec.gridStart).value_or(0);
    end = ParseDate(spec.gridEnd).value_or(-1);
  }
  else
  {
    Day most = 0;
    for (int year = CivilOf(first).year - 1; year <= CivilOf(last).year; ++year)
    {
      const Day from = at(spec.gridStart, year);
      const Day to = at(spec.gridEnd, spec.gridEnd < spec.gridStart ? year + 1 : year);
      const Day overlap = std::min(to, last) - std::max(from, first) + 1;
      if (end < begin || overlap > most)
      {
        most = overlap;
        begin = from;
        end = to;
      }
    }
  }
  const int step = std::max(1, spec.gridStep);
  int count = end < begin ? 0 : (end - begin) / step + 1;
  if (spec.gridStart.size() == 5)
  {
    // As many dates every year: those of a common one.
    const Day from = at(spec.gridStart, 2001), to = at(spec.gridEnd, spec.gridEnd < spec.gridStart ? 2002 : 2001);
    count = (to - from) / step + 1;
  }
  std::vector<Day> dates;
  for (int k = 0; k < count; ++k)
  {
    dates.push_back(begin + k * step);
  }
  return dates;
}

std::vector<float> EncodeDates(const DateEncoding& encoding, const std::vector<Day>& dates)
{
  std::vector<float> codes;
  const Day reference = encoding.kind == DateEncoding::Kind::DaysSince ? ParseDate(encoding.reference).value_or(0) : dates.empty() ? 0 : dates.front();
  for (std::size_t t = 0; t < dates.size(); ++t)
  {
    switch (encoding.kind)
    {
    case DateEncoding::Kind::DayOfYear:
      codes.push_back(static_cast<float>(DayOfYear(dates[t])));
      break;
    case DateEncoding::Kind::DaysSince:
    case DateEncoding::Kind::DaysSinceFirst:
      codes.push_back(static_cast<float>(dates[t] - reference));
      break;
    case DateEncoding::Kind::MonthIndex:
      codes.push_back(static_cast<float>(MonthIndex(dates[t])));
      break;
    case DateEncoding::Kind::Index:
      codes.push_back(static_cast<float>(t));
      break;
    }
  }
  return codes;
}

} // namespace dl
} // namespace otb

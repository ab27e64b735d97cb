/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Dates: the calendar, what is read as one, regular dates and codes.
#include "otbDLDates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

namespace
{

using namespace otb::dl;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Day D(const char* text)
{
  const auto day = ParseDate(text);
  EXPECT_TRUE(day) << text;
  return day.value_or(0);
}

std::vector<std::string> Texts(const std::vector<Day>& days)
{
  std::vector<std::string> texts;
  for (const Day d : days)
  {
    texts.push_back(ToString(d));
  }
  return texts;
}

TEST(Dates, EachDayFrom1900To2199ComesAfterTheOneBeforeAndIsReadBack)
{
  const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  Day expected = MakeDay(1900, 1, 1);
  for (int year = 1900; year < 2200; ++year)
  {
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int ofYear = 0;
    for (int month = 1; month <= 12; ++month)
    {
      for (int day = 1; day <= days[month - 1] + (leap && month == 2); ++day)
      {
        char dashed[32], plain[32];
        std::snprintf(dashed, sizeof dashed, "%04d-%02d-%02d", year, month, day);
        std::snprintf(plain, sizeof plain, "%04d%02d%02d", year, month, day);
        ASSERT_EQ(MakeDay(year, month, day), expected) << dashed;
        ASSERT_EQ(ToString(expected), dashed);
        ASSERT_EQ(ParseDate(dashed), expected);
        ASSERT_EQ(ParseDate(plain), expected);
        ASSERT_EQ(MonthIndex(expected), month - 1) << dashed;
        ASSERT_EQ(DayOfYear(expected), ++ofYear) << dashed;
        ++expected;
      }
    }
  }
  EXPECT_EQ(expected, MakeDay(2200, 1, 1));
}

TEST(Dates, DaysAreCountedFrom1970)
{
  EXPECT_EQ(MakeDay(1970, 1, 1), 0);
  EXPECT_EQ(MakeDay(1969, 12, 31), -1);
  EXPECT_EQ(MakeDay(2000, 1, 1), 10957); // 30 years, 7 of them leap years
}

TEST(Dates, EveryFourthYearHasALeapDayButOnlyEveryFourthCentury)
{
  EXPECT_TRUE(ParseDate("20200229"));
  EXPECT_TRUE(ParseDate("2000-02-29"));
  EXPECT_FALSE(ParseDate("19000229"));
  EXPECT_FALSE(ParseDate("2100-02-29"));
  EXPECT_FALSE(ParseDate("20210229"));
  EXPECT_EQ(DayOfYear(D("2020-12-31")), 366);
  EXPECT_EQ(DayOfYear(D("2021-12-31")), 365);
  EXPECT_EQ(DayOfYear(D("2020-03-01")), 61);
}

TEST(Dates, WhatIsNoDateIsNotReadAsOne)
{
  for (const char* text :
       {"",          "2018",     "2018051",  "201805111", "2018-5-11", "2018/05/11", "2018-05-1 ", " 20180511", "20180511 ", "+2018511",   "-2018511",
        "2018-0511", "20181301", "20180001", "20180532",  "20180500",  "20180431",   "18991231",   "22000101",  "2O180511",  "2018-05-1a", "11-05-2018"})
  {
    EXPECT_FALSE(ParseDate(text)) << text;
  }
}

struct Named
{
  const char* path;
  const char* date; ///< nullptr: none
};

TEST(Dates, ADateIsFoundInNamesOfProducts)
{
  const Named cases[] = {
      {"SENTINEL2A_20180511-105804-435_L2A_T31TCJ_D.tif", "2018-05-11"},
      {"SENTINEL2B_20190204-105912-341_L2A_T31TCJ_C_V2-1_FRE_B2.tif", "2019-02-04"},
      {"S2A_OPER_MSI_L1C_TL_MTI__20160120T104345_A003020_T39QZG_B01.tif", "2016-01-20"},
      {"T31TCJ_20200607T105031_B02_10m.jp2", "2020-06-07"},
      {"S2A_MSIL2A_20200607T105031_N0214_R051_T31TCJ_20200607T134621.SAFE", "2020-06-07"},
      {"s1a_31TCJ_vv_DES_110_20200103t060124.tif", "2020-01-03"},
      {"S1A_IW_GRDH_1SDV_20210305T174712_20210305T174737_036867_0455A1_7D3F.tif", "2021-03-05"},
      {"LC08_L1TP_198030_20190715_20190721_01_T1_B4.TIF", "2019-07-15"}, // acquired, then processed
      {"LANDSAT8-OLITIRS-XS_20170912-103015-120_L2A_T31TCJ_D_V1-9.tif", "2017-09-12"},
      {"20180511.tif", "2018-05-11"},
      {"x2018-05-11.tif", "2018-05-11"},
      {"2018-05-11", "2018-05-11"},
      {"20181399_20180511.tif", "2018-05-11"},                  // the first is none
      {"/data/20170101/series/B04_20180511.tif", "2018-05-11"}, // not the folder
      {"/data/20170101/B04.tif", nullptr},
      {"201805111.tif", nullptr}, // part of a longer number
      {"120180511.tif", nullptr},
      {"2018-05-111.tif", nullptr},
      {"12018-05-11.tif", nullptr},
      {"1898-05-11.tif", nullptr},
      {"dem.tif", nullptr},
      {"", nullptr},
      {"/", nullptr},
  };
  for (const auto& c : cases)
  {
    const auto found = DateInName(c.path);
    EXPECT_EQ(found ? ToString(*found) : "none", c.date ? c.date : "none") << c.path;
  }
}

TEST(Dates, ATextGivesADateALineAsTheyCome)
{
  EXPECT_THAT(Texts(ParseDates("20180511\n2018-05-01\n20170101", "il.dates", "f")), ElementsAre("2018-05-11", "2018-05-01", "2017-01-01"));
}

TEST(Dates, CommentsEmptyLinesSpacesReturnsAndAByteOrderMarkArePassedOver)
{
  EXPECT_THAT(Texts(ParseDates("\xef\xbb\xbf"
                               "20180511\r\n\r\n# 20180512\r\n  2018-05-13\t# clear\r\n#\n\n",
                               "o", "f")),
              ElementsAre("2018-05-11", "2018-05-13"));
}

std::string MessageOf(const std::string& text)
{
  try
  {
    ParseDates(text, "il.dates", "dates.txt");
  }
  catch (const Error& e)
  {
    return e.what();
  }
  return "no error";
}

TEST(Dates, ALineThatIsNoDateIsNamedWithItsNumber)
{
  EXPECT_THAT(MessageOf("20180511\n\nyesterday # or so\n"),
              AllOf(HasSubstr("il.dates: found"), HasSubstr("\"yesterday\" in line 3 of dates.txt"), HasSubstr("YYYYMMDD or YYYY-MM-DD")));
  EXPECT_THAT(MessageOf("20180230"), HasSubstr("\"20180230\" in line 1"));
  EXPECT_THAT(MessageOf("20180511 20180512"), HasSubstr("\"20180511 20180512\" in line 1"));
  EXPECT_THAT(MessageOf(std::string(1000, 'x')), AllOf(HasSubstr("\"" + std::string(40, 'x') + "\""), Not(HasSubstr(std::string(41, 'x')))));
  // The mark of UTF-8 belongs at the beginning.
  EXPECT_THAT(MessageOf("20180511\n\xef\xbb\xbf"
                        "20180512"),
              HasSubstr("in line 2"));
}

TEST(Dates, DatesThatComeTwiceAreAllNamedWithTheirLines)
{
  EXPECT_THAT(MessageOf("20180511\n20180512\n2018-05-11\n# no\n20180512\n20180513\n20180511"),
              AllOf(HasSubstr("2018-05-11 in lines 1 and 3"), HasSubstr("2018-05-12 in lines 2 and 5"), HasSubstr("2018-05-11 in lines 1 and 7"),
                    Not(HasSubstr("2018-05-13")), HasSubstr("each date once")));
}

TEST(Dates, ATextWithoutADateIsAnError)
{
  for (const char* text : {"", "\n\n", "# 20180511", "\xef\xbb\xbf"})
  {
    EXPECT_THAT(MessageOf(text), HasSubstr("no date in dates.txt")) << text;
  }
}

std::vector<std::string> Grid(const char* start, const char* end, int step, const char* first, const char* last)
{
  TemporalSpec spec;
  spec.gapFill = TemporalSpec::GapFill::Grid;
  spec.gridStart = start;
  spec.gridEnd = end;
  spec.gridStep = step;
  return Texts(RegularDates(spec, D(first), D(last)));
}

TEST(Dates, RegularDatesOfAYearAreThoseOfThatYearWhateverTheSeries)
{
  EXPECT_THAT(Grid("2018-02-20", "2018-03-12", 10, "2020-01-01", "2020-12-31"), ElementsAre("2018-02-20", "2018-03-02", "2018-03-12"));
  EXPECT_THAT(Grid("2020-02-20", "2020-03-12", 10, "2020-01-01", "2020-12-31"), ElementsAre("2020-02-20", "2020-03-01", "2020-03-11"));
}

TEST(Dates, TheEndOfAGridIsADateOfItOnlyWhereAStepMeetsIt)
{
  EXPECT_THAT(Grid("2018-01-01", "2018-01-05", 2, "2018-01-01", "2018-01-05"), ElementsAre("2018-01-01", "2018-01-03", "2018-01-05"));
  EXPECT_THAT(Grid("2018-01-01", "2018-01-06", 2, "2018-01-01", "2018-01-05"), ElementsAre("2018-01-01", "2018-01-03", "2018-01-05"));
  EXPECT_THAT(Grid("2018-01-01", "2018-01-01", 5, "2018-01-01", "2018-01-05"), ElementsAre("2018-01-01"));
}

TEST(Dates, AGridWithoutAYearLiesInTheYearThatOverlapsMost)
{
  // 2018: March to October; of 2019 only March 1st to 10th.
  EXPECT_EQ(Grid("03-01", "10-27", 10, "2018-01-10", "2019-03-10").front(), "2018-03-01");
  // 2018: October 1st to 27th; 2019: March 1st to June 1st.
  EXPECT_EQ(Grid("03-01", "10-27", 10, "2018-10-01", "2019-06-01").front(), "2019-03-01");
  EXPECT_EQ(Grid("03-01", "10-27", 10, "2018-10-01", "2019-06-01").size(), 25u);
  // One day of 2019 more than of 2018.
  EXPECT_EQ(Grid("01-01", "12-31", 30, "2018-12-31", "2019-01-02").front(), "2019-01-01");
}

TEST(Dates, OfYearsThatOverlapAlikeTheEarliestIsTaken)
{
  EXPECT_EQ(Grid("03-01", "10-27", 10, "2017-01-01", "2020-12-31").front(), "2017-03-01");
  EXPECT_EQ(Grid("01-01", "12-31", 30, "2018-12-31", "2019-01-01").front(), "2018-01-01");
}

TEST(Dates, AGridThatEndsBeforeItStartsReachesIntoTheFollowingYear)
{
  EXPECT_THAT(Grid("12-20", "01-09", 10, "2018-11-01", "2019-03-01"), ElementsAre("2018-12-20", "2018-12-30", "2019-01-09"));
  // From January on it began in the year before the first date.
  EXPECT_THAT(Grid("10-01", "06-30", 100, "2019-01-01", "2019-06-30"), ElementsAre("2018-10-01", "2019-01-09", "2019-04-19"));
}

TEST(Dates, AYearlyGridHasAsManyDatesInLeapYears)
{
  EXPECT_THAT(Grid("02-27", "03-02", 1, "2020-01-01", "2020-12-31"), ElementsAre("2020-02-27", "2020-02-28", "2020-02-29", "2020-03-01"));
  EXPECT_THAT(Grid("02-27", "03-02", 1, "2021-01-01", "2021-12-31"), ElementsAre("2021-02-27", "2021-02-28", "2021-03-01", "2021-03-02"));
}

TEST(Dates, AGridBefore1970IsAsGoodAsAnother)
{
  EXPECT_EQ(Grid("03-01", "10-27", 10, "1965-01-10", "1965-12-10").front(), "1965-03-01");
}

std::vector<float> Codes(DateEncoding::Kind kind, const std::vector<const char*>& dates, const std::string& reference = "")
{
  DateEncoding encoding;
  encoding.kind = kind;
  encoding.reference = reference;
  std::vector<Day> days;
  for (const char* d : dates)
  {
    days.push_back(D(d));
  }
  return EncodeDates(encoding, days);
}

TEST(Dates, DatesAreEncodedAsTheContractSays)
{
  const std::vector<const char*> dates = {"2019-12-31", "2020-01-01", "2020-02-29", "2020-12-31"};
  using Kind = DateEncoding::Kind;
  EXPECT_THAT(Codes(Kind::DayOfYear, dates), ElementsAre(365, 1, 60, 366));
  EXPECT_THAT(Codes(Kind::DaysSince, dates, "2020-01-01"), ElementsAre(-1, 0, 59, 365));
  EXPECT_THAT(Codes(Kind::DaysSinceFirst, dates), ElementsAre(0, 1, 60, 366));
  EXPECT_THAT(Codes(Kind::MonthIndex, dates), ElementsAre(11, 0, 1, 11));
  EXPECT_THAT(Codes(Kind::Index, dates), ElementsAre(0, 1, 2, 3));
  EXPECT_TRUE(Codes(Kind::DaysSinceFirst, {}).empty());
}

} // namespace

/*
 * Copyright (C) 2026 the OTBTorch authors
 *
 * Licensed under the Apache License, Version 2.0: see LICENSE.
 */

// Messages.
#include "otbDLError.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace
{

using namespace otb::dl;
using testing::HasSubstr;

TEST(Error, AComplaintIsReadInOrder)
{
  EXPECT_EQ(Complaint("in1", "3 bands", "4", "Choose them with -bands."), "in1: found 3 bands; expected 4. Choose them with -bands.");
}

TEST(Error, PartsOfAComplaintMayBeLeftOut)
{
  EXPECT_EQ(Complaint("in1", "3 bands", "4", ""), "in1: found 3 bands; expected 4");
  EXPECT_EQ(Complaint("in1", "3 bands", "", ""), "in1: found 3 bands");
  EXPECT_EQ(Complaint("in1", "", "", ""), "in1");
}

TEST(Error, AContractErrorListsItsViolations)
{
  const ContractError e("\"m.pt\"", {{"/id", "is missing"}, {"/type", "is wrong"}});
  EXPECT_THAT(e.what(), HasSubstr("\"m.pt\""));
  EXPECT_THAT(e.what(), HasSubstr("2 violations:\n  /id: is missing\n  /type: is wrong\n"));
  ASSERT_EQ(e.Violations().size(), 2u);
  EXPECT_EQ(e.Violations()[1].path, "/type");
}

TEST(Error, OneViolationIsSingular)
{
  EXPECT_THAT(ContractError("x", {{"/id", "is missing"}}).what(), HasSubstr("1 violation:\n"));
}

TEST(Error, AContractErrorIsAnError)
{
  EXPECT_THROW(throw ContractError("x", {}), Error);
}

} // namespace

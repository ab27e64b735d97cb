# What every target of ours gets: C++17 (OTB asks for 14), warnings as errors, no path of this machine in what is built.
function(otbtorch_target name)
  target_compile_features(${name} PUBLIC cxx_std_17)
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
  target_compile_options(${name} PRIVATE -Wall -Wextra -ffile-prefix-map=${PROJECT_SOURCE_DIR}/= $<$<BOOL:${OTBTorch_WARNINGS_AS_ERRORS}>:-Werror>)
endfunction()

# A GoogleTest program whose tests appear in CTest one by one, under the given labels.
function(otbtorch_gtest name)
  cmake_parse_arguments(T "" "" "SOURCES;LIBRARIES;LABELS;DEFINITIONS" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  otbtorch_target(${name})
  target_link_libraries(${name} PRIVATE ${T_LIBRARIES} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ${T_DEFINITIONS})
  include(GoogleTest)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES LABELS "${T_LABELS}")
endfunction()

# What is installed beside library and applications (those install themselves), and the Debian package.
include(GNUInstallDirs)

install(DIRECTORY data/models data/scene data/qgis DESTINATION share/otbtorch COMPONENT Runtime PATTERN "__pycache__" EXCLUDE PATTERN "*.aux.xml" EXCLUDE)

# Debian's Python looks into lib/python3 below /usr alone, elsewhere into the folder of its version.
execute_process(COMMAND ${OTBTorch_PYTHON} -c "import sys; print('python%d.%d' % sys.version_info[:2])"
  OUTPUT_VARIABLE _python OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr" OR NOT _python)
  set(_python python3)
endif()
set(_python_dir lib/${_python}/dist-packages)
install(DIRECTORY python/otbtorch DESTINATION ${_python_dir} COMPONENT Runtime PATTERN "__pycache__" EXCLUDE)
install(FILES doc/model-contract.schema.json DESTINATION ${_python_dir}/otbtorch COMPONENT Runtime)

# Documentation, with the licence where Debian's policy wants it.
install(FILES README.md CHANGELOG.md DESTINATION share/doc/otbtorch COMPONENT Runtime)
install(FILES cmake/debian/copyright DESTINATION share/doc/otbtorch COMPONENT Runtime)
install(DIRECTORY doc/ DESTINATION share/doc/otbtorch/doc COMPONENT Runtime)

# Commands of the Python package; in the build tree they run the sources.
foreach(_command otbtorch otbtorch-run)
  file(COPY cmake/launchers/${_command} DESTINATION ${CMAKE_BINARY_DIR}/bin
    FILE_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
  install(PROGRAMS cmake/launchers/${_command} DESTINATION bin COMPONENT Runtime)
endforeach()

# One script for a prefix of one's own; the package needs none.
if(NOT CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(OTBTorch_PYTHON_DIR ${_python_dir})
  configure_file(cmake/launchers/otbtorch-env.sh.in ${CMAKE_BINARY_DIR}/otbtorch-env.sh @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/otbtorch-env.sh DESTINATION bin COMPONENT Runtime)
endif()

# Manual pages, where lowdown can make them: `man otbcli_SiameseCD`, `man otbtorch`.
find_program(LOWDOWN lowdown)
if(LOWDOWN)
  set(_man ${CMAKE_BINARY_DIR}/man/man1)
  set(_pages "")
  foreach(_application ChangeEvaluation ChangeLikelihood SiameseCD TimeSeriesClassify)
    add_custom_command(OUTPUT ${_man}/otbcli_${_application}.1.gz
      COMMAND ${OTBTorch_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/cmake/manual_page.py otbcli_${_application}
        --page ${CMAKE_CURRENT_SOURCE_DIR}/doc/${_application}.md --launcher ${CMAKE_BINARY_DIR}/bin/otbcli_${_application}
        --version ${PROJECT_VERSION} --out ${_man}
      DEPENDS otbapp_${_application} cmake/manual_page.py doc/${_application}.md VERBATIM)
    list(APPEND _pages ${_man}/otbcli_${_application}.1.gz)
  endforeach()
  set(_page_otbtorch otbtorch)
  set(_page_otbtorch-run cluster)
  foreach(_command otbtorch otbtorch-run)
    set(_page doc/${_page_${_command}}.md)
    add_custom_command(OUTPUT ${_man}/${_command}.1.gz
      COMMAND ${OTBTorch_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/cmake/manual_page.py ${_command}
        --page ${CMAKE_CURRENT_SOURCE_DIR}/${_page} --version ${PROJECT_VERSION} --out ${_man}
      DEPENDS cmake/manual_page.py ${_page} VERBATIM)
    list(APPEND _pages ${_man}/${_command}.1.gz)
  endforeach()
  add_custom_target(manual ALL DEPENDS ${_pages})
  install(DIRECTORY ${_man} DESTINATION share/man COMPONENT Runtime)
endif()

# `make package`: one Debian package of all but headers.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME otbtorch)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The OTBTorch authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "PyTorch models over satellite images, as Orfeo ToolBox applications")
set(CPACK_PACKAGE_DESCRIPTION "Streaming applications of the Orfeo ToolBox that run TorchScript models:
change detection between two dates (SiameseCD), land cover from time series
(TimeSeriesClassify), change without labels (ChangeLikelihood), and how good a
map of change is (ChangeEvaluation). For the command line, QGIS Processing,
Monteverdi and Python; with models, a Python package that exports networks,
writes reports and runs many tiles on a cluster, and manual pages.")
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/package)
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL Runtime RuntimeLibraries)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_BINARY_DIR}/lib)
# What shlibdeps cannot see: OTB's launcher, a fast BLAS (LibTorch links any), the modules that otbtorch imports.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "otb-bin, libopenblas0-pthread | libopenblas0-openmp, python3, python3-numpy, python3-gdal, python3-jsonschema, \
python3-matplotlib, python3-pil, python3-jinja2, python3-markdown")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "otb-bin-qt, otb-qgis, python3-torch, python3-distributed, python3-dask")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "qgis, monteverdi, weasyprint")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_SOURCE_DIR}/cmake/debian/postinst ${CMAKE_CURRENT_SOURCE_DIR}/cmake/debian/prerm
  ${CMAKE_CURRENT_SOURCE_DIR}/cmake/debian/triggers)
include(CPack)

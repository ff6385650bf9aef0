# find_package(pare) for users: headers, targets, config. Nothing in it depends on the machine. All is in the
# component `pare`, so that a host, or a build with fetched dependencies, can install it alone.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(PARE_CONFIG_DIR "${CMAKE_INSTALL_DATADIR}/cmake/pare")

set(include_dir "${CMAKE_INSTALL_INCLUDEDIR}")
configure_package_config_file(cmake/pareConfig.cmake.in "${PROJECT_BINARY_DIR}/package/pareConfig.cmake"
  INSTALL_DESTINATION "${PARE_CONFIG_DIR}" PATH_VARS include_dir)
configure_file(cmake/pareConfigVersion.cmake.in "${PROJECT_BINARY_DIR}/pareConfigVersion.cmake" @ONLY)

install(DIRECTORY include/pare DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT pare
  FILES_MATCHING PATTERN "*.hpp")
install(FILES
  "${PROJECT_BINARY_DIR}/package/pareConfig.cmake"
  "${PROJECT_BINARY_DIR}/pareConfigVersion.cmake"
  cmake/pareTargets.cmake
  DESTINATION "${PARE_CONFIG_DIR}" COMPONENT pare)
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/pare" COMPONENT pare)

# Who names this build folder finds the headers of the tree.
set(include_dir "${PROJECT_SOURCE_DIR}/include")
configure_package_config_file(cmake/pareConfig.cmake.in "${PROJECT_BINARY_DIR}/pareConfig.cmake"
  INSTALL_DESTINATION "${PROJECT_BINARY_DIR}" PATH_VARS include_dir)
configure_file(cmake/pareTargets.cmake "${PROJECT_BINARY_DIR}/pareTargets.cmake" COPYONLY)

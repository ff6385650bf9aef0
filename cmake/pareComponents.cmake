# Defines pare::simd and pare::eigen where xsimd and Eigen 3.4 or later are found. Used by this build
# and, installed beside pareConfig.cmake, by find_package(pare COMPONENTS simd eigen).

# By header, because some packages of xsimd 8 have a CMake config that asks for xtl, which the
# headers do not need.
if(NOT TARGET pare::simd)
  if(TARGET xsimd)
    add_library(pare::simd INTERFACE IMPORTED ${PARE_TARGET_SCOPE})
    set_property(TARGET pare::simd PROPERTY INTERFACE_LINK_LIBRARIES pare::pare xsimd)
  else()
    find_path(PARE_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp)
    mark_as_advanced(PARE_XSIMD_INCLUDE_DIR)
    if(PARE_XSIMD_INCLUDE_DIR)
      add_library(pare::simd INTERFACE IMPORTED ${PARE_TARGET_SCOPE})
      set_property(TARGET pare::simd PROPERTY INTERFACE_LINK_LIBRARIES pare::pare)
      set_property(TARGET pare::simd PROPERTY INTERFACE_INCLUDE_DIRECTORIES "${PARE_XSIMD_INCLUDE_DIR}")
    endif()
  endif()
endif()

# Without a version, because the config of Eigen 5 refuses a request for 3.4.
if(NOT TARGET pare::eigen)
  if(NOT TARGET Eigen3::Eigen)
    find_package(Eigen3 QUIET CONFIG)
    if(Eigen3_FOUND AND Eigen3_VERSION VERSION_LESS 3.4)
      message(STATUS "pare: Eigen ${Eigen3_VERSION} in ${Eigen3_DIR} is too old, 3.4 is needed")
    endif()
  endif()
  if(TARGET Eigen3::Eigen AND NOT (Eigen3_VERSION AND Eigen3_VERSION VERSION_LESS 3.4))
    add_library(pare::eigen INTERFACE IMPORTED ${PARE_TARGET_SCOPE})
    set_property(TARGET pare::eigen PROPERTY INTERFACE_LINK_LIBRARIES pare::pare Eigen3::Eigen)
  endif()
endif()

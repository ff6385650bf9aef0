# Defines pare::simd, pare::eigen and pare::thrust where xsimd, Eigen 3.4 or later and Thrust 1.17 or
# later are found. Used by this build and, installed beside pareConfig.cmake, by find_package(pare
# COMPONENTS simd eigen thrust).

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

# By header, because the CMake packages of Thrust and of CCCL, which it became a part of, differ. For
# files that are compiled by a host compiler, Thrust's device system is the one that needs nothing else;
# thrust::omp::par works there too.
if(NOT TARGET pare::thrust)
  file(GLOB PARE_CUDA_INCLUDES /usr/local/cuda/include/cccl /usr/local/cuda/include)
  find_path(PARE_THRUST_INCLUDE_DIR thrust/version.h HINTS ${PARE_CUDA_INCLUDES})
  mark_as_advanced(PARE_THRUST_INCLUDE_DIR)
  if(PARE_THRUST_INCLUDE_DIR)
    file(STRINGS "${PARE_THRUST_INCLUDE_DIR}/thrust/version.h" PARE_THRUST_VERSION REGEX "define THRUST_VERSION [0-9]+")
    string(REGEX MATCH "[0-9]+$" PARE_THRUST_VERSION "${PARE_THRUST_VERSION}")
    if(PARE_THRUST_VERSION LESS 101700)
      message(STATUS "pare: Thrust ${PARE_THRUST_VERSION} in ${PARE_THRUST_INCLUDE_DIR} is too old, 101700 is needed")
    else()
      add_library(pare::thrust INTERFACE IMPORTED ${PARE_TARGET_SCOPE})
      set_property(TARGET pare::thrust PROPERTY INTERFACE_LINK_LIBRARIES pare::pare)
      set_property(TARGET pare::thrust PROPERTY INTERFACE_INCLUDE_DIRECTORIES
        "$<$<COMPILE_LANGUAGE:CXX>:${PARE_THRUST_INCLUDE_DIR}>") # nvcc has its own
      set_property(TARGET pare::thrust PROPERTY INTERFACE_COMPILE_OPTIONS
        "$<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda;--expt-relaxed-constexpr>")
      set_property(TARGET pare::thrust PROPERTY INTERFACE_COMPILE_DEFINITIONS
        "$<$<COMPILE_LANGUAGE:CXX>:THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP>")
    endif()
  endif()
endif()

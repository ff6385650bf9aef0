# Defines pare::pare and, where their library is found, those of pare::simd (xsimd 8.1 or later), pare::eigen
# (Eigen 3.4 or later) and pare::thrust (Thrust 1.17 or later) that pare_COMPONENTS names. Used by this build
# and, installed beside pareConfig.cmake, by find_package(pare); both say pare_VERSION and pare_INCLUDE_DIR, and
# this build that pare_TARGET_SCOPE is GLOBAL.
#
# All are imported targets, also where pare is a folder of another project, so that this project can export
# targets that link them: what is exported has their names, as those of any package that is found.
cmake_policy(VERSION 3.16...4.1)

# For those who look for a target in vain.
set(pare_simd_NEEDS "pare::simd needs the headers of xsimd 8.1 or later (Debian's libxsimd-dev)")
set(pare_eigen_NEEDS "pare::eigen needs Eigen 3.4 or later (Debian's libeigen3-dev)")
set(pare_thrust_NEEDS "pare::thrust needs the headers of Thrust 1.17 or later (Debian's libthrust-dev, or CUDA)")
foreach(pare_component simd eigen thrust)
  string(APPEND pare_${pare_component}_NEEDS "; where it is installed elsewhere, add its prefix to CMAKE_PREFIX_PATH.")
endforeach()

# pare::pare is all headers: an include path and a language level, nothing else. In particular no
# -march: a flag here would change the ABI of every target that links it.
if(NOT TARGET pare::pare)
  add_library(pare::pare INTERFACE IMPORTED ${pare_TARGET_SCOPE})
  set_target_properties(pare::pare PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${pare_INCLUDE_DIR}"
    INTERFACE_COMPILE_FEATURES cxx_std_17
    INTERFACE_PARE_VERSION "${pare_VERSION}")
else()
  get_target_property(pare_used pare::pare INTERFACE_PARE_VERSION)
  if(pare_used AND NOT pare_used STREQUAL pare_VERSION)
    message(WARNING "pare: pare::pare is already here in version ${pare_used}, and version ${pare_VERSION} in "
      "${pare_INCLUDE_DIR} is not used. Let all of the project take the same one.")
  endif()
endif()

# By header, unless the project has a target `xsimd` or the user says where its package is: that package makes the
# target, whose name the project may want for itself, and in some packages of xsimd 8, Debian's among them, it links
# xtl, which the headers do not need, without looking for it.
if("simd" IN_LIST pare_COMPONENTS AND NOT TARGET pare::simd)
  find_path(PARE_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp)
  mark_as_advanced(PARE_XSIMD_INCLUDE_DIR)
  if(NOT TARGET xsimd AND (xsimd_DIR OR xsimd_ROOT OR NOT PARE_XSIMD_INCLUDE_DIR))
    find_package(xsimd QUIET CONFIG)
  endif()
  set(pare_xsimd "")
  set(pare_xsimd_links "")
  if(TARGET xsimd)
    get_target_property(pare_xsimd xsimd TYPE) # a program of that name is another thing
    get_target_property(pare_xsimd_links xsimd INTERFACE_LINK_LIBRARIES)
  endif()
  if(pare_xsimd STREQUAL "INTERFACE_LIBRARY" AND (TARGET xtl OR NOT "xtl" IN_LIST pare_xsimd_links))
    add_library(pare::simd INTERFACE IMPORTED ${pare_TARGET_SCOPE})
    set_target_properties(pare::simd PROPERTIES INTERFACE_LINK_LIBRARIES "pare::pare;xsimd")
  elseif(PARE_XSIMD_INCLUDE_DIR)
    file(STRINGS "${PARE_XSIMD_INCLUDE_DIR}/xsimd/config/xsimd_config.hpp" pare_xsimd
      REGEX "define XSIMD_VERSION_(MAJOR|MINOR) ")
    string(REGEX MATCHALL "[0-9]+" pare_xsimd "${pare_xsimd}")
    string(REPLACE ";" "." pare_xsimd "${pare_xsimd}")
    if(pare_xsimd VERSION_LESS 8.1)
      message(STATUS "pare: xsimd ${pare_xsimd} in ${PARE_XSIMD_INCLUDE_DIR} is too old, 8.1 is needed")
    else()
      add_library(pare::simd INTERFACE IMPORTED ${pare_TARGET_SCOPE})
      set_target_properties(pare::simd PROPERTIES
        INTERFACE_LINK_LIBRARIES pare::pare
        INTERFACE_INCLUDE_DIRECTORIES "${PARE_XSIMD_INCLUDE_DIR}")
    endif()
  endif()
endif()

# Without a version, because the config of Eigen 5 refuses a request for 3.4.
if("eigen" IN_LIST pare_COMPONENTS AND NOT TARGET pare::eigen)
  if(NOT TARGET Eigen3::Eigen)
    find_package(Eigen3 QUIET CONFIG)
  endif()
  if(TARGET Eigen3::Eigen AND Eigen3_VERSION AND Eigen3_VERSION VERSION_LESS 3.4)
    message(STATUS "pare: Eigen ${Eigen3_VERSION} in ${Eigen3_DIR} is too old, 3.4 is needed")
  elseif(TARGET Eigen3::Eigen)
    add_library(pare::eigen INTERFACE IMPORTED ${pare_TARGET_SCOPE})
    set_target_properties(pare::eigen PROPERTIES INTERFACE_LINK_LIBRARIES "pare::pare;Eigen3::Eigen")
  endif()
endif()

# By header, because the CMake packages of Thrust and of CCCL, which it became a part of, differ. For
# files that are compiled by a host compiler, Thrust's device system is the one that needs nothing else;
# thrust::omp::par works there too.
if("thrust" IN_LIST pare_COMPONENTS AND NOT TARGET pare::thrust)
  file(GLOB pare_cuda /usr/local/cuda/include/cccl /usr/local/cuda/include)
  find_path(PARE_THRUST_INCLUDE_DIR thrust/version.h HINTS ${pare_cuda})
  mark_as_advanced(PARE_THRUST_INCLUDE_DIR)
  if(PARE_THRUST_INCLUDE_DIR)
    file(STRINGS "${PARE_THRUST_INCLUDE_DIR}/thrust/version.h" pare_thrust REGEX "define THRUST_VERSION [0-9]+")
    string(REGEX MATCH "[0-9]+$" pare_thrust "${pare_thrust}")
    if(pare_thrust LESS 101700)
      message(STATUS "pare: Thrust ${pare_thrust} in ${PARE_THRUST_INCLUDE_DIR} is too old, 101700 is needed")
    else()
      add_library(pare::thrust INTERFACE IMPORTED ${pare_TARGET_SCOPE})
      set_target_properties(pare::thrust PROPERTIES
        INTERFACE_LINK_LIBRARIES pare::pare
        INTERFACE_INCLUDE_DIRECTORIES "$<$<COMPILE_LANGUAGE:CXX>:${PARE_THRUST_INCLUDE_DIR}>" # nvcc has its own
        INTERFACE_COMPILE_OPTIONS "$<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda;--expt-relaxed-constexpr>"
        INTERFACE_COMPILE_DEFINITIONS "$<$<COMPILE_LANGUAGE:CXX>:THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP>")
    endif()
  endif()
endif()

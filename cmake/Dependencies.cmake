# What the tests, examples and benchmarks need; users of the headers never come here.
# Found on the system first; with PARE_FETCH_DEPENDENCIES the rest is downloaded.
include(FetchContent)
set(PARE_MISSING "")

# pare_fetch(name target repository tag [option=value...]): downloads and adds a project that was not found.
function(pare_fetch name target repository tag)
  if(TARGET ${target})
    return()
  endif()
  if(NOT PARE_FETCH_DEPENDENCIES)
    set(PARE_MISSING ${PARE_MISSING} ${name} PARENT_SCOPE)
    return()
  endif()
  foreach(setting IN LISTS ARGN)
    string(REPLACE "=" ";" setting "${setting}")
    list(GET setting 0 key)
    list(GET setting 1 value)
    set(${key} ${value} CACHE INTERNAL "for ${name}")
  endforeach()
  set(CMAKE_COMPILE_WARNING_AS_ERROR OFF)
  set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)
  FetchContent_Declare(${name} GIT_REPOSITORY ${repository} GIT_TAG ${tag} GIT_SHALLOW ON SYSTEM)
  FetchContent_MakeAvailable(${name})
endfunction()

# pare_find_library(target header library): an imported target for a library without a CMake config.
function(pare_find_library target header library)
  find_path(${library}_INCLUDE_DIR ${header})
  find_library(${library}_LIBRARY ${library})
  mark_as_advanced(${library}_INCLUDE_DIR ${library}_LIBRARY)
  if(${library}_INCLUDE_DIR AND ${library}_LIBRARY AND NOT TARGET ${target})
    add_library(${target} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES
      IMPORTED_LOCATION "${${library}_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${${library}_INCLUDE_DIR}")
  endif()
endfunction()

find_package(OpenMP QUIET) # the compiler's own; optional but for the encoder
if(PARE_EXAMPLES AND NOT OpenMP_CXX_FOUND)
  list(APPEND PARE_MISSING "OpenMP of ${CMAKE_CXX_COMPILER_ID}")
endif()

pare_fetch(xsimd pare::simd https://github.com/xtensor-stack/xsimd.git 13.2.0)
pare_fetch(Eigen3 pare::eigen https://gitlab.com/libeigen/eigen.git 3.4.0
  BUILD_TESTING=OFF EIGEN_BUILD_DOC=OFF EIGEN_BUILD_PKGCONFIG=OFF)
include(cmake/pareTargets.cmake) # again, for what was downloaded

if(PARE_TESTS)
  find_package(Catch2 QUIET CONFIG) # 2.13 or 3
  pare_fetch(Catch2 Catch2::Catch2 https://github.com/catchorg/Catch2.git v3.7.1)
endif()

if(PARE_BENCHMARKS)
  find_package(benchmark QUIET CONFIG)
  pare_fetch(benchmark benchmark::benchmark https://github.com/google/benchmark.git v1.9.1
    BENCHMARK_ENABLE_TESTING=OFF BENCHMARK_ENABLE_INSTALL=OFF)
endif()

if(PARE_EXAMPLES)
  find_package(nlohmann_json QUIET CONFIG)
  find_package(CLI11 QUIET CONFIG)
  find_package(fmt QUIET CONFIG)
  pare_find_library(utf8proc utf8proc.h utf8proc)
  pare_find_library(pcre2-8 pcre2.h pcre2-8)
  pare_fetch(nlohmann_json nlohmann_json::nlohmann_json https://github.com/nlohmann/json.git v3.12.0)
  pare_fetch(CLI11 CLI11::CLI11 https://github.com/CLIUtils/CLI11.git v2.5.0)
  pare_fetch(fmt fmt::fmt https://github.com/fmtlib/fmt.git 11.0.2)
  pare_fetch(utf8proc utf8proc https://github.com/JuliaStrings/utf8proc.git v2.10.0)
  pare_fetch(pcre2 pcre2-8 https://github.com/PCRE2Project/pcre2.git pcre2-10.44
    PCRE2_BUILD_TESTS=OFF PCRE2_BUILD_PCRE2GREP=OFF PCRE2_SUPPORT_LIBBZ2=OFF PCRE2_SUPPORT_LIBZ=OFF)
  if(TARGET pcre2-8-static AND NOT TARGET pcre2-8)
    add_library(pcre2-8 ALIAS pcre2-8-static)
  endif()
  # oneDNN is optional: without it the encoder uses a kernel of its own. By header and library, because its config
  # insists on OpenCL.
  pare_find_library(dnnl oneapi/dnnl/dnnl.hpp dnnl)
  # ONNX is optional: without it nothing is exported. Its config brings in more than the format.
  pare_find_library(onnx_proto onnx/onnx-ml.pb.h onnx_proto)
  pare_find_library(protobuf google/protobuf/message.h protobuf)
endif()

if(PARE_MISSING)
  list(JOIN PARE_MISSING ", " PARE_MISSING)
  message(FATAL_ERROR "pare: not found: ${PARE_MISSING}. Run `sh cmake/setup.sh` (Debian, Ubuntu), or "
    "configure with -DPARE_FETCH_DEPENDENCIES=ON, or leave out what needs them with "
    "-DPARE_TESTS=OFF -DPARE_EXAMPLES=OFF -DPARE_BENCHMARKS=OFF; the headers alone need none of them.")
endif()

# For our own targets only, never for users of the headers. Warnings become errors in the presets; imported
# targets, as pare::pare is, would show none in their headers.
set_target_properties(pare::pare PROPERTIES SYSTEM OFF)
add_library(pare_warnings INTERFACE)
target_compile_options(pare_warnings INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow>"
  # False alarms of g++ 12 in its own AVX-512 headers (its bug 105593); clang still looks.
  "$<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-uninitialized;-Wno-maybe-uninitialized>"
  # Of the newest clang, in Catch2's macros and in what libstdc++ 12's stable_sort calls.
  "$<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wno-deprecated-declarations;-Wno-unknown-warning-option;-Wno-c2y-extensions>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wno-maybe-uninitialized>")

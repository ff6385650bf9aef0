# Every public header compiles alone and twice, without a warning in strict projects, and brings in no library that
# it is not meant to.
file(GLOB PARE_SIMD_HEADERS CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/include/pare/policy/kernels/*.hpp")
list(APPEND PARE_SIMD_HEADERS pare/policy/simd.hpp)
set(PARE_EIGEN_HEADERS pare/eliminate.hpp pare/head_shapes.hpp pare/least_squares.hpp pare/leaving.hpp pare/project.hpp pare/project/narrowing.hpp
  pare/prune.hpp pare/prune/plan.hpp pare/prune/refit.hpp pare/prune/statistics.hpp pare/prune/statistics_file.hpp
  pare/ridge.hpp pare/rotary_pairs.hpp pare/tune.hpp)

file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/include/pare/*.hpp")
list(REMOVE_ITEM headers pare/policy/kernels/cuda_affine.hpp pare/policy/kernels/cuda_matrix.hpp) # for nvcc
if(headers)
  add_library(pare_header_tests OBJECT)
  set_target_properties(pare_header_tests PROPERTIES UNITY_BUILD OFF)
  target_link_libraries(pare_header_tests PRIVATE pare::simd pare::eigen pare_warnings
    $<TARGET_NAME_IF_EXISTS:pare::thrust>)
  target_compile_options(pare_header_tests PRIVATE -O0)
endif()
foreach(header IN LISTS headers)
  set(unwanted "0")
  if(header MATCHES "/thrust(/[a-z]+|_affine|_kept|_matrix|_select|_staging|_system|_top)?\\.hpp$")
    if(NOT TARGET pare::thrust)
      continue()
    endif()
  else()
    string(APPEND unwanted " || defined(THRUST_VERSION)")
  endif()
  if(NOT header IN_LIST PARE_SIMD_HEADERS)
    string(APPEND unwanted " || defined(XSIMD_VERSION_MAJOR)")
  endif()
  if(NOT header IN_LIST PARE_EIGEN_HEADERS)
    string(APPEND unwanted " || defined(EIGEN_WORLD_VERSION)")
  endif()
  set(macro "") # of complex.h; other libraries have names like it
  if(NOT header IN_LIST PARE_SIMD_HEADERS AND NOT header IN_LIST PARE_EIGEN_HEADERS AND NOT header MATCHES "/thrust")
    set(macro "#define I 1\n")
  endif()
  string(REPLACE "/" "_" file "${header}")
  file(CONFIGURE OUTPUT "headers/${file}.cpp" @ONLY CONTENT
"@macro@#include <@header@>
#include <@header@>
#if @unwanted@
#error <@header@> includes xsimd, Eigen or Thrust, which its users need not have
#endif
")
  target_sources(pare_header_tests PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/headers/${file}.cpp")
  if(NOT header MATCHES "/kernels/") # which policies include, and keep g++'s warnings of signed arrays from
    set_source_files_properties("${CMAKE_CURRENT_BINARY_DIR}/headers/${file}.cpp" PROPERTIES COMPILE_OPTIONS "${PARE_STRICT_WARNINGS}")
  endif()
endforeach()

# A real call by each policy, with the header of the component and that of the policy alone.
file(GLOB calls CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/headers/*.cpp")
function(pare_header_calls name policy)
  add_library(pare_header_calls_${name} OBJECT ${calls})
  set_target_properties(pare_header_calls_${name} PROPERTIES UNITY_BUILD OFF)
  target_link_libraries(pare_header_calls_${name} PRIVATE pare::eigen pare_warnings ${ARGN})
  target_compile_definitions(pare_header_calls_${name} PRIVATE "POLICY=${policy}")
  if(NOT name STREQUAL "seq")
    target_compile_definitions(pare_header_calls_${name} PRIVATE "POLICY_HEADER=<pare/policy/${name}.hpp>")
  endif()
  target_compile_options(pare_header_calls_${name} PRIVATE -O0 ${PARE_STRICT_WARNINGS})
endfunction()
pare_header_calls(seq pare::seq)
pare_header_calls(simd pare::simd pare::simd)
if(TARGET pare::thrust)
  pare_header_calls(thrust "pare::on(thrust::cpp::par)" pare::thrust)
endif()

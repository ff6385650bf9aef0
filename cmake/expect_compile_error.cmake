# cmake -D COMPILER= -D STANDARD= -D INCLUDES= -D FILE= -P this file: FILE must not compile, with the message
# that its line `// expect: REGEX` asks for.
cmake_minimum_required(VERSION 3.25)
file(STRINGS "${FILE}" line REGEX "^// expect: ")
if(NOT line)
  message(FATAL_ERROR "${FILE} has no line `// expect: REGEX`")
endif()
string(REPLACE "// expect: " "" expected "${line}")

set(flags -std=c++${STANDARD} -fsyntax-only -w)
foreach(folder IN LISTS INCLUDES)
  if(folder)
    list(APPEND flags -I ${folder}) # not -isystem, which breaks on /usr/include
  endif()
endforeach()
set(ENV{LC_ALL} C) # in English
execute_process(COMMAND ${COMPILER} ${flags} ${FILE} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${FILE} compiles and should not")
endif()
if(NOT output MATCHES "${expected}")
  message(FATAL_ERROR "${FILE} does not compile, but without the message `${expected}`:\n${output}")
endif()

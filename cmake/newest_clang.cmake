# A toolchain file: the newest clang that is installed.
file(GLOB clangs /usr/bin/clang++-[0-9]* /usr/local/bin/clang++-[0-9]*)
if(clangs)
  list(SORT clangs COMPARE NATURAL ORDER DESCENDING)
  list(GET clangs 0 CMAKE_CXX_COMPILER)
else()
  set(CMAKE_CXX_COMPILER clang++)
endif()

// Catch2 2.13 comes without a compiled main; Catch2 3 does not use this file.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

"""A Conan 2 package of this tree: `conan create packaging/conan`."""

import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain
from conan.tools.files import copy, load, rmdir


class Pare(ConanFile):
    name = "pare"
    description = "Header-only components that prune transformers"
    license = "MIT"
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"simd": [True, False], "eigen": [True, False]}  # pare::simd, pare::eigen
    default_options = {"simd": True, "eigen": True}
    implements = ["auto_header_only"]

    def _tree(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        header = load(self, os.path.join(self._tree(), "include", "pare", "version.hpp"))
        self.version = ".".join(re.findall(r"define PARE_VERSION_\w+ (\d+)", header))

    def export_sources(self):
        for pattern in "CMakeLists.txt", "LICENSE", "cmake/*", "include/*":
            copy(self, pattern, self._tree(), self.export_sources_folder)

    def requirements(self):
        if self.options.simd:
            self.requires("xsimd/[>=8.1 <15]")
        if self.options.eigen:
            self.requires("eigen/[>=3.4 <6]")

    def validate(self):
        check_min_cppstd(self, 17)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.user_presets_path = False
        for part in "TESTS", "EXAMPLES", "BENCHMARKS":
            toolchain.cache_variables["PARE_" + part] = False
        toolchain.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install(component="pare")
        rmdir(self, os.path.join(self.package_folder, "share", "licenses"))  # Conan's place is another
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        # find_package(pare) finds the config that CMake has installed, with its components.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = ["share/cmake/pare"]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []

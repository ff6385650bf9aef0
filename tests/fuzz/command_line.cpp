// A program's command line: everything that it finds out before it reads a file. An argument a line.
#include <filesystem>

#define main program
#include PARE_FUZZ_PROGRAM
#undef main

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string text(reinterpret_cast<const char*>(data), size);
    std::replace(text.begin(), text.end(), '\n', '\0');
    text += '\0';
    std::string name = "program";
    std::vector<char*> arguments = {name.data()};
    for (std::size_t at = 0; at < text.size(); at = text.find('\0', at) + 1)
        arguments.push_back(text.data() + at);
    const auto count = static_cast<int>(arguments.size());
    arguments.push_back(nullptr);
    exit_status("program", [&] {
        ::arguments a;
        if (parse(count, arguments.data(), a)) check(a);
    });
    return 0;
}

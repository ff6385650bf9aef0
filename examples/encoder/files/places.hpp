// What is where an output is to be, and whether it may be.
#pragma once

#include "output.hpp"

namespace encoder::detail {

bool is_there(const std::filesystem::path& path);
/// Whether an open file is the one at `path`.
bool is_open_on(int file, const std::filesystem::path& path);
/// The standard stream that is open on the file at `path`, or -1.
int standard_stream(const std::filesystem::path& path);
/// Standard streams, and what is neither file nor folder.
bool is_written_through(const std::filesystem::path& path);

/// Throws if what is at `path`, if anything, may not be replaced by something of this kind.
void check_place(const std::filesystem::path& path, const output::kind& of,
                 const std::filesystem::path& named);
/// Throws if the next step would, for all that can be known now.
void check_writable(const std::filesystem::path& path, const output::kind& of,
                    const std::filesystem::path& named);

} // namespace encoder::detail

# What Doxygen reads of a header (sed -E): the first comment as the file's; lists of parameters, `/// name  text`, as
# such, so that it warns of those that there are not; no inline namespace, whose name is another in each unit; of a
# policy no primitives, of macros the version alone, which are what is public.
1,/^#pragma once/ {
    s|^//|///|
    s|^#pragma once|/// \\file|
}
s|^( *)/// ([a-z_]+(, [a-z_]+)*)  +([^ ])|\1/// \\param \2 \4|
s|^#define PARE_([^V])|// PARE_\1|
s|^inline namespace PARE_ISA \{$||
s|^\} // namespace PARE_ISA$||
/^    \/\/ Primitives/,/^};/ {
    s|^    // Primitives.*|/// \\cond|
    s|^};|/** \\endcond */ };|
}

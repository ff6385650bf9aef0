"""What units with different flags share, of which the linker keeps either one's copy.

shared_code.py symbols NM OBJECT...           no function of pare
shared_code.py opcodes NM OBJDUMP OBJECT...   nothing that the first one's processor cannot run

Shared are inline functions and templates of the same name. What pare throws is caught across units,
and its error handler set for all, so these have one name in all of them.
"""

import re
import subprocess
import sys

ERRORS = r"(typeinfo (name )?for |vtable for )?pare::(shape_|value_|device_)?error\b|pare::error_handler$"
# Instructions with a VEX or EVEX prefix, and those of BMI and its like.
BEYOND = r"v(?!err|erw)|andn|bextr|bls|bzhi|mulx|pdep|pext|rorx|sarx|sh[lr]x|lzcnt|movbe|popcnt"


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def mergeable(nm, path):
    """The names of inline functions (W) and their static variables (u, V), mangled and not."""
    names = {}
    for line in output(nm, "--defined-only", path).splitlines():
        kind, name = line.split()[1:]
        if kind in "WuV":
            names[name] = None
    plain = output(nm, "--defined-only", "--demangle", path).splitlines()
    kinds = [line.split(maxsplit=2)[1:] for line in plain]
    return dict(zip(names, [name for kind, name in kinds if kind in "WuV"]))


def symbols(nm, objects):
    """The functions of pare, or of others with pare's types among their parameters, that are in two."""
    seen, faults = {}, []
    for path in objects:
        names = {m: n for m, n in mergeable(nm, path).items() if "pare::" in n}
        ours = {m: n for m, n in names.items() if not re.match(ERRORS, n)}
        if not ours:
            sys.exit(f"{path} has no inline function of pare: this test looks at the wrong thing")
        faults += [f"{n}\n    in {seen[m]}\n    and {path}" for m, n in ours.items() if m in seen]
        seen.update(dict.fromkeys(ours, path))
        print(len(ours), "symbols in", path)
    return faults


def opcodes(nm, objdump, objects):
    """The shared functions that have instructions beyond the first object's."""
    base = mergeable(nm, objects[0])
    faults = []
    for path in objects[1:]:
        shared = {m: n for m, n in mergeable(nm, path).items() if m in base}
        print(len(shared), "shared with", path)
        for mangled, name in shared.items():
            code = output(objdump, "-d", "--no-show-raw-insn", f"--disassemble={mangled}", path)
            found = re.findall(rf"^\s+[0-9a-f]+:\s+((?:{BEYOND})\w*)", code, re.M)
            if found:
                faults.append(f"{name}\n    has {found[0]} in {path}")
    return faults


def main():
    check, nm, *rest = sys.argv[1:]
    faults = symbols(nm, rest) if check == "symbols" else opcodes(nm, rest[0], rest[1:])
    if faults:
        sys.exit("\n".join(faults))


main()

"""Every argument of every function, given what it cannot be: the compiler must say what to pass.

every_argument.py INCLUDES COMPILER FLAG...

A call below names its arguments by what they are. Each in turn is replaced by a container of another
kind, a view of another rank, const or temporary memory; all of that is one file, since no two of the
types are the same, and the compiler must give the right sentence for each of its lines.
"""

import os
import re
import subprocess
import sys
import tempfile

# P the policy; i1, i2, ... an input of that rank; o1, ... an output; n1 integers that are read and w1
# integers that are written; d2 a matrix of double that is overwritten; r2 and t2 rows, of a vector or
# a matrix, that are read and written. What else there is stands for itself.
CALLS = """
mask_gradients(P, i2, i2, n1, 1, o2)
sample_sums(P, i2, n1, o2)
centre_mask_gradients(i2, i1, 1, o2)
fisher<>(4).add(P, i2)
gram<>(4).add(P, i2)
gram<>(4, 4).add(P, i2, i2)
least_squares(4).add(P, i2)
least_squares(4, 4).add(P, i2, i2)
least_squares(4, 4).add(P, i2, i2, i1)
eliminate(P, i2, i2, i2)
eliminate_ranks(P, i2, i2, i2, 2, n1)
rank_curves(P, i2, i2, i2, 2, loss_curve())
project(i2, i2)
narrow_rows(std::vector<head_maps>(), head_map::down, 1, i2, o2)
query_statistics(2, 4).add(P, i3, i3, i1)
eliminate_pairs(P, i3, i3, rotary_layout::halves)
sorted_losses(i1)
draw_class_gradients(i2, 1, o2)
rearrange(P, i2, w1)
kept_positions(n1)
keep_rows(P, i2, n1, o2)
keep_columns(P, i2, n1, o2)
keep_entries(P, i1, n1, o1)
fold_scales(i1, 1, o2)
reconstruct(P, least_squares(4, 4), o2, o1)
scale(P, least_squares(4, 4), 1, o2, i1, o1)
importance(P, i3, o1)
importance(P, i3, o1, {})
importance(P, i4, n1, o2)
importance(P, i4, {}, o2)
importance(P, i4, n1, o2, {})
importance_packed(P, i1, 2, n1, o1)
importance_backward(P, i2, n1, o4)
score_accumulator().add(i1)
score_accumulator().keep(n1)
attention(P, i3, i3, i3, n1, o3)
attention(P, i3, i3, i3, n1, o3, {})
attention(P, i3, i3, i3, n1, o3, s1)
attention(P, i3, i3, i3, n1, o3, s1, {})
attention(P, i3, i3, i3, n1, o3, s2)
attention_shares(P, i3, i3, i3, n1, o3, o2)
scores_of_shares(P, i2, n1, s2)
attention_scores(P, i3, i3, i2, n1, s1)
attention_scores(P, i3, i3, i2, n1, s2)
attention_scores(P, i4, i4, i3, n1, o2)
pool_scores(P, q1, n1, 2, pooling::max, s1)
pool_scores(P, q2, n1, 2, pooling::max, s2)
share_budget(i2, 4, 1, w1)
soft_mask(P, i1, 0, 1, o1)
soft_mask_backward(P, i1, i1, 1, o1)
scale_rows(P, i1, i2, o2)
scale_rows_backward(P, i1, i2, i2, o2, o1)
mask_penalty(P, i1, n1, 1, o1)
keep_above(P, i1, 0, w1)
keep_above(P, i1, 0, n1, w1, w1)
keep_top_k(P, i1, 1, w1)
keep_top_k(P, i1, 1, n1, w1, w1)
keep_top_k(P, i1, n1, n1, w1, w1)
keep_above_async(P, i1, 0, n1, w1, w1)
keep_top_k_async(P, i1, 1, n1, w1, w1)
dropped_ranges(n1, n1, w2)
gather_rows(P, n1, from_to(r2, t2))
gather_rows(P, n1, t2)
gather_rows_async(P, n1, n1, from_to(r2, t2))
gather_rows_async(P, n1, n1, t2)
nearest_rows(P, i2, n1, n1, w1, o1)
merge_rows(P, n1, n1, o1, from_to(r2, t2))
restore(P, n1, from_to(r2, t2))
restore_async(P, n1, n1, from_to(r2, t2))
factor_cholesky(P, d2)
solve_cholesky(P, d2, d2)
ridge_solve(P, d2, 0.1, d2)
moments_of_lengths(n1)
expand_buckets(i2, o2)
fit_hinge(n1, i1)
leaving_sums(P, i1, n1, o2, i2)
leaving_map<>(4, 4).add(P, i2, o2)
"""

PREAMBLE = """
#include <Eigen/Core>
#include <pare/head_shapes.hpp>
#include <pare/leaving.hpp>
#include <pare/pare.hpp>
#include <pare/rotary_pairs.hpp>
#include <pare/tune.hpp>

#include <list>
#include <vector>

using namespace pare;

template <int> struct no_policy {};
template <int, class T> struct list : std::list<T> {};
template <int, class T> struct vector : std::vector<T> {};
template <int, class T, int Rank> struct view_of : view<T, Rank> {};
template <int> struct matrix : Eigen::MatrixXf { using Eigen::MatrixXf::MatrixXf; };
template <class T> T& a();
"""

PASS_A_VIEW = r"pass a pare::view \(pointer, extents\)"
ANOTHER_RANK = "this view has another rank than the call expects"
ARGUMENT = re.compile(r"\b([ionwdrstq])([1-4])\b|\bP\b")
TYPES = {"n": "int", "w": "int", "d": "double"}


def good(token):
    if token == "P":
        return "seq"
    kind, rank = token
    const = "const " if kind in "inrq" else ""
    return f"a<view<{const}{TYPES.get(kind, 'float')}, {rank}>>()"


def misuses(token, number):
    """What to write in its place, and the sentence that is expected."""
    if token == "P":
        return [(f"no_policy<{number}>()", "the first argument is the policy")]
    kind, rank = token
    t = TYPES.get(kind, "float")
    if kind in "rt":
        result = [(f"a<list<{number}, {t}>>()", PASS_A_VIEW),
                  (f"a<view_of<{number}, {t}, 3>>()", "an array of rows is a vector or a matrix")]
        if kind == "t":
            result.append((f"vector<{number}, {t}>()", "it is a temporary"))
        return result
    if kind in "sq":  # scores, of either rank
        result = [(f"a<list<{number}, {t}>>()", PASS_A_VIEW),
                  (f"a<view_of<{number}, {t}, 3>>()", ANOTHER_RANK)]
        if kind == "s":
            result += [(f"a<const vector<{number}, {t}>>()", "its elements are const"),
                       (f"vector<{number}, {t}>()", "it is a temporary"),
                       (f"matrix<{number}>(2, 2)", "it is a temporary")]
        return result
    result = [(f"a<list<{number}, {t}>>()", PASS_A_VIEW),
              (f"a<view_of<{number}, {t}, {2 if rank == '1' else 1}>>()",
               ANOTHER_RANK)]
    if rank != "1":
        result.append((f"a<vector<{number}, {t}>>()", PASS_A_VIEW))
    elif kind in "io":
        result.append((f"a<matrix<{number}>>()", "the Eigen object is a matrix"))
    if kind in "owd":
        if rank == "1":
            result.append((f"a<const vector<{number}, {t}>>()", "its elements are const"))
            result.append((f"vector<{number}, {t}>()", "it is a temporary"))
        elif rank == "2" and kind == "o":
            result.append((f"matrix<{number}>(2, 2)", "it is a temporary"))
    return result


def source():
    """The file, and by its lines what is expected and the call; none of lines that are right."""
    lines = PREAMBLE.splitlines()
    expected = {}
    number = 0
    for call in CALLS.split("\n")[1:-1]:
        tokens = [("P" if m.group() == "P" else m.groups(), m.span()) for m in ARGUMENT.finditer(call)]

        def with_argument(at, text):
            out, end = "", 0
            for i, (token, span) in enumerate(tokens):
                out += call[end:span[0]] + (text if i == at else good(token))
                end = span[1]
            return out + call[end:]

        variants = [(with_argument(None, ""), None)]
        for at, (token, _) in enumerate(tokens):
            for i in range(len(misuses(token, 0))):
                number += 1
                text, sentence = misuses(token, number)[i]
                variants.append((with_argument(at, text), sentence))
        for text, sentence in variants:
            expected[len(lines) + 1] = (sentence, text)
            lines.append(f"void line{len(lines)}() {{ {text}; }}")
    return "\n".join(lines) + "\n", expected


def errors(output, name):
    """By lines of the file, the errors that are there for them: g++ names the line before the error, as
    where something was required, and clang++ after it."""
    found = {}
    before, last = None, None
    for line in output.splitlines():
        place = re.match(rf"{re.escape(name)}:(\d+):", line)
        error = re.search(r"error: (.*)", line)
        if error:
            last = error.group(1)
            at = int(place.group(1)) if place else before
            if at:
                found.setdefault(at, []).append(last)
        elif place and "required from" in line:
            before = int(place.group(1))
        elif place and last and "instantiation" in line:
            found.setdefault(int(place.group(1)), []).append(last)
        elif re.match(r"\S+: In (instantiation|substitution|function)", line):
            before = None
    return found


def main():
    text, expected = source()
    folders, compiler = sys.argv[1].split(";"), sys.argv[2]
    command = [compiler, "-fsyntax-only", "-w", "-x", "c++", *sys.argv[3:]]
    if "clang" in subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout:
        command += ["-ferror-limit=0", "-ftemplate-backtrace-limit=0"]
    else:
        command += ["-fmax-errors=0", "-ftemplate-backtrace-limit=0"]
    for folder in folders:
        if folder:
            command += ["-I", folder]
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as file:
        file.write(text)
        file.flush()
        english = {**os.environ, "LC_ALL": "C"}
        output = subprocess.run([*command, file.name], capture_output=True, text=True, env=english).stderr
        found = errors(output, file.name)
    wrong = 0
    for line, (sentence, call) in expected.items():
        of_line = found.get(line, [])
        if sentence is None and of_line:
            print(f"{call}\n  should compile: {of_line[0]}")
        elif sentence is not None and not any(re.search(sentence, e) for e in of_line):
            print(f"{call}\n  should say `{sentence}`" + "".join(f"\n  says: {e}" for e in of_line[:2]))
        else:
            continue
        wrong += 1
    print(f"{len(expected)} calls, {wrong} without the right sentence")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

// What the programs write, and that nothing else is lost: not the older result, not a user's files,
// whatever ends a run and whenever it does.
#include "encoder_program.hpp"

#include <encoder/files/model.hpp>
#include <encoder/files/output.hpp>

#include <map>
#include <random>

namespace encoder_output_test {

using namespace encoder;
using programs::read, programs::write;
namespace fs = std::filesystem;

namespace {

/// Everything in a folder but what a run prints: names, and contents of files.
std::map<std::string, std::string> snapshot(const fs::path& folder) {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        const std::string name = entry.path().lexically_relative(folder).string();
        if (name == "stdout" || name == "stderr") continue;
        all[name] = entry.is_symlink()        ? "-> " + fs::read_symlink(entry.path()).string()
                    : entry.is_regular_file() ? read(entry.path())
                                              : "";
    }
    return all;
}

/// A sandbox in which both programs run, each by its shortest command.
struct both : programs::sandbox {
    explicit both(const char* of) : sandbox(of), prunes(of == std::string(PARE_PRUNE_ENCODER)) {}

    bool prunes;
    std::string command() const {
        return std::string("--threads 1 --model model ") +
               (prunes ? "--calibrate text " : "--train text --stage calibrate --target-macs 0.8 ");
    }
    int shell(const std::string& script) {
        const std::string before = std::exchange(program, "sh");
        const int status = run("-c \"" + script + "\"");
        program = before;
        return status;
    }
    /// A training that a signal ends once it has a checkpoint, which stays: its folder.
    fs::path end_at_checkpoint(const std::string& arguments) {
        const std::string out = arguments.substr(arguments.find("--out ") + 6);
        const fs::path learned =
            folder / (out.substr(0, out.find(' ')) + ".checkpoint") / "learned";
        shell("'" + program + "' " + arguments + " & while [ ! -e '" + learned.string() +
              "' ] && kill -0 \\$!; do sleep 0.01; done; kill -TERM \\$!; wait \\$!");
        REQUIRE(fs::exists(learned));
        return learned;
    }
    /// Status 2, one sentence, and nothing is changed.
    void refuses(const std::string& arguments, const std::string& sentence) {
        CAPTURE(program, arguments);
        const auto before = snapshot(folder.path());
        CHECK(run(arguments) == 2);
        CAPTURE(errors);
        CHECK_THAT(errors, ContainsSubstring(sentence));
        CHECK(std::count(errors.begin(), errors.end(), '\n') == 1);
        CHECK(output.empty());
        CHECK(snapshot(folder.path()) == before);
    }
};

const char* const each_program[] = {PARE_PRUNE_ENCODER, PARE_LEARN_THRESHOLDS};

} // namespace

TEST_CASE("what stands beside an output and is a user's stays") {
    for (const char* program : each_program) {
        both p(program);
        const bool folders = GENERATE(true, false);
        for (const std::string name : {"out.unverified", ".out.pare", ".out.pare2", ".r.pare"}) {
            if (!folders) {
                write(p.folder / name, "dear");
                continue;
            }
            fs::create_directory(p.folder / name);
            write(p.folder / name / "lock", "of a diary");
            write(p.folder / name / "new", "dear");
        }
        const auto before = snapshot(p.folder.path());
        REQUIRE(p.run(p.command() + "--out out --json r") == 0);
        auto after = snapshot(p.folder.path());
        for (const auto& [name, content] : before) CHECK(after.at(name) == content);
        CHECK(p.files().size() == 4 + 2);
        REQUIRE(p.run(p.command() + "--out out --json r") == 0); // in the place of an older one
        after = snapshot(p.folder.path());
        for (const auto& [name, content] : before) CHECK(after.at(name) == content);
        CHECK(p.files().size() == 4 + 2);
    }
}

TEST_CASE("outputs over inputs, over each other and in --out are refused before the work") {
    for (const char* program : each_program) {
        both p(program);
        const std::string run = p.command() + (p.prunes ? "--evaluate pairs " : "--dev pairs ");
        REQUIRE(p.run(run + "--out out") == 0);
        fs::create_hard_link(p.folder / "text", p.folder / "hard");
        fs::create_symlink("text", p.folder / "soft");
        fs::create_directory_symlink(".", p.folder / "here");
        fs::create_directory(p.folder / "holder");
        fs::create_directory_symlink("../model", p.folder / "holder" / "link");
        for (const std::string over :
             {"text", "hard", "soft", "./text", "here/text", "model/../text", "pairs"})
            p.refuses(run + "--out small --json " + over, "--json " + over + ": is the text");
        for (const std::string over : {"model/config.json", "model/vocab.txt",
                                       "here/model/model.safetensors", "model/tokenizer.json"})
            p.refuses(run + "--out small --html " + over, "is a file of the model itself");
        p.refuses(run + "--out small --json model", "is the model itself");
        p.refuses(run + "--out small --json r --html r", "--html r: is the same as --json");
        p.refuses(run + "--out small --json r --html here/r", "is the same as --json");
        p.refuses(run + "--out small --json small", "--json small: is the same as --out");
        p.refuses(run + "--out out --json out/r", "--json out/r: is in --out out");
        p.refuses(run + "--out out --json here/out/config.json", "is in --out out");
        for (const std::string over : {"model", "model/", "here/model", "holder/link", "."})
            p.refuses(run + "--out " + over, "");
        p.refuses(run + "--out text", "is the text");
        p.refuses(run + "--out here", "holds the model");
        p.refuses(run + "--out no/where", "does not exist or cannot be written");
        p.refuses(run + "--out small --json no/where", "does not exist or cannot be written");
        p.refuses(run + "--out small --json new/", "is the name of a folder");
        p.refuses(run + "--out small --json holder", "exists and is not a file");
        p.refuses(run + "--out '' --json r", "'' is no name");
        p.refuses(run + "--out small --json ''", "'' is no name");
        fs::create_symlink("no/where", p.folder / "dangling");
        p.refuses(run + "--out dangling", "does not exist or cannot be written");
        fs::create_symlink("loop", p.folder / "loop");
        p.refuses(run + "--out small --json loop", "leads nowhere");
        fs::copy_file(p.folder / "text", p.folder / "out" / "text");
        p.refuses("--model model " + std::string(p.prunes ? "--calibrate" : "--train") +
                      " out/text --out out",
                  "--out out: holds the text");
    }
}

TEST_CASE("only a folder that a program wrote, as it wrote it, is replaced") {
    for (const char* program : each_program) {
        both p(program);
        const std::string again = p.command() + "--out out";
        fs::create_directory(p.folder / "model" / "1_Pooling");
        write(p.folder / "model" / "1_Pooling" / "config.json", "{}");
        fs::create_directory(p.folder / "out"); // empty
        REQUIRE(p.run(again) == 0);
        REQUIRE(p.run(again) == 0);
        const fs::path out = p.folder / "out";
        const std::string sentence = "--out out: exists and is not a model";
        for (const std::string added : {"notes", ".hidden", "1_Pooling/notes"}) {
            write(out / added, "dear");
            p.refuses(again, sentence);
            fs::remove(out / added);
        }
        fs::create_directory(out / "folder");
        p.refuses(again, sentence);
        fs::remove(out / "folder");
        fs::rename(out / "vocab.txt", p.folder / "vocab");
        fs::create_symlink("../vocab", out / "vocab.txt");
        p.refuses(again, sentence);
        fs::remove(out / "vocab.txt");
        p.refuses(again, sentence);
        fs::rename(p.folder / "vocab", out / "vocab.txt");
        fs::permissions(out, fs::perms::owner_all);
        REQUIRE(p.run(again) == 0);
        CHECK(fs::status(out).permissions() == fs::perms::owner_all);
        fs::copy(p.folder / "model" / "model.safetensors", out / "model.safetensors",
                 fs::copy_options::overwrite_existing);
        p.refuses(again, sentence); // a user's weights
        fs::remove_all(out);
        REQUIRE(p.run(again) == 0);
        for (const std::string changed :
             {"config.json", "vocab.txt", "1_Pooling/config.json", "model.safetensors"}) {
            const std::string before = read(out / changed);
            std::string after = before;
            after[after.size() - 2] ^= 1; // as long as before
            write(out / changed, after);
            p.refuses(again, sentence);
            write(out / changed, before);
        }
        REQUIRE(p.run(again) == 0);
        fs::remove_all(out);
        fs::copy(p.folder / "model", out, fs::copy_options::recursive);
        p.refuses(again, sentence);
        fs::remove_all(out);
        write(out, "dear");
        p.refuses(again, sentence);
    }
}

TEST_CASE("links to outputs are followed, and a slash at the end is none of the name") {
    for (const char* program : each_program) {
        both p(program);
        fs::create_directory(p.folder / "there");
        fs::create_directory_symlink("there/real", p.folder / "out");
        fs::create_symlink("there/report", p.folder / "r");
        for (int i = 0; i < 2; ++i) {
            REQUIRE(p.run(p.command() + "--out out --json r") == 0);
            CHECK(fs::is_symlink(p.folder / "out"));
            CHECK(fs::is_symlink(p.folder / "r"));
            CHECK_FALSE(fs::is_symlink(p.folder / "there" / "report"));
            CHECK_FALSE(load_model(p.folder / "there" / "real").layers.empty());
        }
        REQUIRE(p.run(p.command() + "--out new/") == 0);
        REQUIRE(p.run(p.command() + "--out new/") == 0);
        CHECK(p.files() == std::vector<std::string>{"new", "out", "r", "there"});
    }
}

TEST_CASE("devices and pipes are written through") {
    for (const char* program : each_program) {
        both p(program);
        REQUIRE(p.run(p.command() + "--out out --json r") == 0);
        const auto keys = nlohmann::json::parse(read(p.folder / "r")).size();
        const auto is_report = [&](const std::string& text) {
            return nlohmann::json::parse(text).size() == keys;
        };
        // By links, so that a program that replaces them does no harm where tests run as root.
        for (const std::string device : {"stdout", "null", "full"})
            fs::create_symlink("/dev/" + device, p.folder / ("to_" + device));
        REQUIRE(p.run(p.command() + "--out out --json to_stdout") == 0);
        CHECK(is_report(p.output.substr(0, p.output.find("\n}") + 2)));
        CHECK_THAT(p.output, ContainsSubstring("written                out"));
        REQUIRE(p.run(p.command() + "--out out --json to_null --html to_null") == 0);
        const std::string quoted = "'" + p.program + "' " + p.command();
        REQUIRE(p.shell("mkfifo pipe && { cat pipe >piped & } && " + quoted +
                        "--out out --json pipe && wait") == 0);
        CHECK(is_report(read(p.folder / "piped")));
        CHECK(fs::is_fifo(p.folder / "pipe"));
        CHECK(p.run(p.command() + "--out other --json to_full") == 2);
        CHECK_THAT(p.errors, ContainsSubstring("to_full: cannot be written: No space left"));
        for (const std::string device : {"stdout", "null", "full"})
            CHECK(fs::is_symlink(p.folder / ("to_" + device)));
    }
}

TEST_CASE("a standard output that cannot be written to is an error") {
    for (const char* program : each_program) {
        both p(program);
        const std::string quoted = "'" + p.program + "' " + p.command();
        for (const std::string to : {">/dev/full", ">&-"}) {
            CAPTURE(to);
            CHECK(p.shell(quoted + "--out out " + to) == 2);
            CHECK_THAT(p.errors, ContainsSubstring("standard output: cannot be written"));
            CHECK_FALSE(load_model(p.folder / "out").layers.empty()); // which took long enough
        }
        CHECK(p.shell("{ " + quoted + "--out out; echo \\$? >status; } | true") == 0);
        if (const std::string status = read(p.folder / "status"); status != "0\n")
            CHECK(status == "2\n"); // by the time it prints, `true` has ended, or not
        CHECK(p.shell("'" + p.program + "' --help >/dev/full") == 2);
        CHECK(p.shell(quoted + "--out out 2>&-") == 0);
        CHECK(p.shell(quoted + "--out out 2>/dev/full") == 0);
    }
}

TEST_CASE("what a signal has cleared away does not come back while the run still writes") {
    fixtures::scratch_folder folder;
    const fs::path source = folder / "model";
    fs::create_directory(source);
    fs::copy(fixtures::path("tiny_bert"), source / "0_Transformer", fs::copy_options::recursive);
    fs::create_directories(source / "1" / "Pooling");
    write(source / "1" / "Pooling" / "config.json", "{}");
    write(source / "modules.json", R"([
        {"idx": 0, "name": "0", "path": "0_Transformer",
         "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1/Pooling",
         "type": "sentence_transformers.models.Pooling"}])");
    const model m = load_model(source);
    output out(folder / "out", written_model);
    fs::remove_all(out.path()); // as the thread that waits for signals does
    CHECK_THROWS_AS(write_model(m, source, out), file_error);
    CHECK_FALSE(fs::exists(out.path()));
}

TEST_CASE("killed at any moment, a run leaves the old result or the new one") {
    std::mt19937 random(std::random_device{}());
    for (const char* program : each_program) {
        both p(program);
        const auto arguments = [&](int i) {
            return p.command() + (p.prunes ? "--macs " : "--alpha ") + (i % 2 ? "0.9" : "0.8") +
                   " --out out --json r ";
        };
        std::vector<std::map<std::string, std::string>> whole;
        for (int i = 0; i < 2; ++i) {
            REQUIRE(p.run(arguments(i)) == 0);
            whole.push_back(snapshot(p.folder / "out"));
        }
        REQUIRE(whole[0] != whole[1]);
        write(p.folder / "out.unverified", "dear");
        for (int i = 0; i < 20; ++i) {
            const bool term = i % 3 == 0;
            const std::string delay = std::to_string(0.005 + random() % 1000 * 0.00015);
            p.program = "timeout";
            p.run(std::string("-s ") + (term ? "TERM " : "KILL ") + delay + " '" + program + "' " +
                  arguments(i));
            p.program = program;
            const auto found = snapshot(p.folder / "out");
            CHECK((found == whole[0] || found == whole[1]));
            CHECK(nlohmann::json::parse(read(p.folder / "r")).size() > 3);
            CHECK(read(p.folder / "out.unverified") == "dear");
        }
        REQUIRE(p.run(arguments(0)) == 0);
        CHECK(snapshot(p.folder / "out") == whole[0]);
        CHECK(p.files() == std::vector<std::string>{"out", "out.unverified", "r"});
    }
}

TEST_CASE("what a run that was killed left is cleared, and put back where it was moved") {
    for (const char* program : each_program) {
        both p(program);
        REQUIRE(p.run(p.command() + "--out out") == 0);
        const auto whole = snapshot(p.folder / "out");
        const fs::path rest = p.folder / ".out.pare";
        // Between two renames, on a system that cannot exchange names.
        fs::create_directory(rest);
        write(rest / "lock", "pare writes something here\n");
        fs::rename(p.folder / "out", rest / "old");
        fs::create_directory(rest / "new");
        CHECK(p.run("--model none --out out " + std::string(p.prunes ? "--calibrate" : "--train") +
                    " text") == 2);
        CHECK(snapshot(p.folder / "out") == whole);
        CHECK(p.files() == std::vector<std::string>{"out"});
        // Before there was anything in it.
        fs::create_directory(rest);
        REQUIRE(p.run(p.command() + "--out out") == 0);
        CHECK(p.files() == std::vector<std::string>{"out"});
    }
}

TEST_CASE("signals end a run, and it leaves nothing behind but its checkpoint") {
    both p(PARE_LEARN_THRESHOLDS);
    for (const std::string signal : {"INT", "TERM", "HUP"}) {
        CAPTURE(signal);
        p.program = "timeout";
        CHECK(p.run("-s " + signal +
                    " 0.3 '" PARE_LEARN_THRESHOLDS "' --model model --train text "
                    "--epochs 5000,5000 --threads 1 --out out --json r") == 124);
        for (const std::string& name : p.files()) CHECK(name == "out.checkpoint");
        if (!fs::exists(p.folder / "out.checkpoint")) continue;
        for (const auto& entry : fs::directory_iterator(p.folder / "out.checkpoint"))
            CHECK(entry.path().filename() == "learned");
    }
    p.program = PARE_LEARN_THRESHOLDS;
    // Where it is to be ignored, it is.
    CHECK(p.shell("trap '' HUP; '" PARE_LEARN_THRESHOLDS "' " + p.command() +
                  "--out other >/dev/null & sleep 0.02; kill -HUP \\$!; wait \\$!") == 0);
}

TEST_CASE("of two runs to one place, one writes it and the other says why it does not") {
    for (const char* program : each_program) {
        both p(program);
        const std::string quoted = "'" + p.program + "' " + p.command() + "--out out --json ";
        for (int i = 0; i < 3; ++i) {
            CAPTURE(program, i);
            p.shell("for i in 1 2; do { " + quoted +
                    "r\\$i >/dev/null 2>e\\$i; echo \\$? >s\\$i; } & done; wait");
            int good = 0;
            for (const std::string run : {"1", "2"}) {
                const std::string status = read(p.folder / ("s" + run));
                const std::string said = read(p.folder / ("e" + run));
                CAPTURE(said);
                good += status == "0\n";
                if (status == "0\n") continue;
                CHECK(status == "2\n");
                CHECK_THAT(said, ContainsSubstring("out: another run is writing it"));
            }
            CHECK(good > 0);
            CHECK_FALSE(load_model(p.folder / "out").layers.empty());
            for (const std::string& name : p.files()) CHECK(name[0] != '.');
        }
    }
}

TEST_CASE("two runs keep their times in one file, and none are lost") {
    both p(PARE_PRUNE_ENCODER);
    const std::string quoted = "'" + p.program + "' " + p.command() +
                               "--budget latency=0.9 --latency-times times --latency-batch ";
    p.shell("for i in 1 2 3; do { " + quoted +
            "\\${i}x8 --out out\\$i >/dev/null 2>e\\$i; echo \\$? >s\\$i; } & done; wait");
    std::size_t good = 0;
    for (const std::string run : {"1", "2", "3"}) { // one may have waited too long for the others
        const std::string said = read(p.folder / ("e" + run));
        CAPTURE(said);
        if (read(p.folder / ("s" + run)) == "0\n")
            ++good;
        else
            CHECK_THAT(said, ContainsSubstring("times: another run is writing it"));
    }
    REQUIRE(good > 0);
    CHECK(nlohmann::json::parse(read(p.folder / "times")).front().size() == good);
}

TEST_CASE("a disk that is full is a sentence, and leaves all as it was") {
    for (const char* program : each_program) {
        both p(program);
        const std::string quoted = "'" + p.program + "' " + p.command() + "--out out --json r";
        for (int i = 0; i < 2; ++i) { // without an older result, and with one
            const auto before = snapshot(p.folder.path());
            CHECK(p.shell("ulimit -f 20; " + quoted) == 2); // of 512 or 1024 bytes
            CHECK_THAT(p.errors, ContainsSubstring("cannot be written: File too large"));
            CHECK(p.output.empty());
            CHECK(snapshot(p.folder.path()) == before);
            if (i == 0) REQUIRE(p.run(p.command() + "--out out --json r") == 0);
        }
    }
    // A checkpoint that does not fit leaves the one before it.
    both p(PARE_LEARN_THRESHOLDS);
    const std::string run = "--model model --train text --evaluate pairs --batch 8 --threads 1 "
                            "--stage soft,hard --epochs 1,60 ";
    REQUIRE(p.run(run + "--out whole") == 0);
    p.end_at_checkpoint(run + "--out parts");
    const auto before = snapshot(p.folder.path());
    CHECK(p.shell("ulimit -f 20; '" PARE_LEARN_THRESHOLDS "' " + run + "--out parts") == 2);
    CHECK(snapshot(p.folder.path()) == before);
    REQUIRE(p.run(run + "--out parts") == 0);
    CHECK(read(p.folder / "parts" / "model.safetensors") ==
          read(p.folder / "whole" / "model.safetensors"));
    CHECK(p.files() == std::vector<std::string>{"parts", "whole"});
}

TEST_CASE("checkpoints that are damaged, of another run or a user's are refused by name") {
    both p(PARE_LEARN_THRESHOLDS);
    const std::string run = "--model model --train text --evaluate pairs --batch 8 --threads 1 "
                            "--stage soft,hard --epochs 1,500 --out out ";
    const fs::path learned = p.end_at_checkpoint(run);
    const std::string state = read(learned / "state.json"),
                      weights = read(learned / "weights.safetensors");
    const auto with = [&](const char* key, const nlohmann::json& value) {
        nlohmann::json changed = nlohmann::json::parse(state);
        changed[key] = value;
        write(learned / "state.json", changed.dump());
    };
    const auto refused = [&](const std::string& arguments, const std::string& sentence) {
        p.refuses(arguments, sentence);
        write(learned / "state.json", state);
        write(learned / "weights.safetensors", weights);
    };
    write(learned / "state.json", state.substr(0, state.size() / 2));
    refused(run, "learned/state.json: not valid JSON");
    fs::remove(learned / "state.json");
    refused(run, "learned/state.json: there is no such file");
    write(learned / "weights.safetensors", weights.substr(0, weights.size() / 2));
    refused(run, "learned/weights.safetensors: ");
    fs::remove(learned / "weights.safetensors");
    refused(run, "learned/weights.safetensors: there is no such file; remove ");
    for (const char* key : {"numbers", "left", "first", "second"}) {
        with(key, {1.0, 2.0});
        refused(run, std::string(key) + " has 2 entries, the model has 3 layers");
    }
    with("epoch", -1);
    refused(run, "epoch is -1");
    with("stage", 77);
    refused(run, "stage is 77");
    with("steps", -5);
    refused(run, "steps is -5");
    with("numbers", "none");
    refused(run, "numbers is not a list with a number for each of 3 layers");
    refused(run + "--target-macs 0.7", "is of a run whose target is 0.5, not 0.7; remove " +
                                           fs::canonical(p.folder / "out.checkpoint").string() +
                                           " to begin anew");

    model other = load_model(p.folder / "model");
    other.layers[0].query.weight *= 2;
    save_model(other, p.folder / "model", p.folder / "other");
    refused("--model other" + run.substr(run.find(" --train")), "is of a run whose model is");

    // What is beside checkpoints stays, and so does their folder then.
    fs::remove_all(p.folder / "out.checkpoint");
    fs::create_directory(p.folder / "out.checkpoint");
    write(p.folder / "out.checkpoint" / "diary", "dear");
    REQUIRE(p.run(p.command() + "--out out") == 0);
    CHECK(p.files() == std::vector<std::string>{"other", "out", "out.checkpoint"});
    CHECK(read(p.folder / "out.checkpoint" / "diary") == "dear");
    fs::rename(p.folder / "out.checkpoint", p.folder / "elsewhere");
    fs::create_directory_symlink("elsewhere", p.folder / "out.checkpoint");
    REQUIRE(p.run(p.command() + "--out out") == 0);
    CHECK(fs::is_symlink(p.folder / "out.checkpoint"));
    CHECK(read(p.folder / "elsewhere" / "diary") == "dear");
    fs::create_directory_symlink("../disk", learned);
    REQUIRE(p.run(p.command() + "--out out") == 0);
    CHECK(fs::read_symlink(learned) == "../disk");
    CHECK_FALSE(fs::exists(p.folder / "disk"));
    fs::remove(learned);
    fs::create_directory(learned);
    write(learned / "diary", "dear");
    p.refuses(p.command() + "--out out", "learned/state.json: there is no such file");
    fs::remove_all(p.folder / "out.checkpoint");
    write(p.folder / "out.checkpoint", "dear");
    p.refuses(p.command() + "--out out", "exists and is not a folder");
}

TEST_CASE("numbers that no option can be are refused") {
    both prune(PARE_PRUNE_ENCODER), learn(PARE_LEARN_THRESHOLDS);
    const std::string huge = "99999999999999999999999";
    for (both* p : {&prune, &learn}) {
        const std::string run = p == &prune ? "--model model --calibrate text --out out "
                                            : "--model model --train text --out out ";
        for (const std::string threads : {"100000", "-1"})
            p->refuses(run + "--threads " + threads, "--threads is " + threads + ", expected 0 to");
        for (const std::string no : {"''", huge.c_str(), "1.5"})
            p->refuses(run + "--threads " + no, "is not a whole number");
        for (const char* option : {"--seed", p == &prune ? "--samples" : "--batch"})
            for (const std::string no : {"''", "-1", huge.c_str()})
                p->refuses(run + option + " " + no, "is not a whole number from 0 to 2^64 - 1");
        const std::vector<std::string> of_prune = {"--macs", "--ridge"},
                                       of_learn = {"--target-macs",    "--lambda",
                                                   "--temperature",    "--alpha",
                                                   "--threshold-rate", "--rate",
                                                   "--epochs"};
        for (const std::string& option : p == &prune ? of_prune : of_learn)
            for (const std::string no : {"''", "1e999", "-1", "nan"})
                p->refuses(run + option + " " + no, option);
        CHECK(p->run(run + "--seed 18446744073709551615 --threads 2") == 0);
    }
    learn.refuses(learn.command() + "--out out --batch 0", "--batch is 0, expected");
    learn.refuses(learn.command() + "--out out --batch 18446744073709551615", "--batch is");
    CHECK(prune.run(prune.command() + "--out out --samples 18446744073709551615") == 0);
    for (const char* batch : {"-1x-1", "x", "4x", "x4", "99999999999999999999x4", "4x4x4"})
        prune.refuses(prune.command() + "--out new --budget latency=0.9 --latency-batch " + batch,
                      "--latency-batch");
    for (const char* budget : {"macs=", "macs=0x1p-1", "macs=1e999", "params=-1", "macs=nan"})
        prune.refuses(prune.command() + "--out new --budget " + budget, "--budget is");
}

TEST_CASE("a model that changes while it is read is read whole or refused") {
    both p(PARE_PRUNE_ENCODER);
    const std::string quoted = "'" + p.program + "' " + p.command() + "--out out >/dev/null";
    p.shell("cp model/model.safetensors whole; { while test -e whole; do truncate -s 3000 "
            "model/model.safetensors; cp whole model/model.safetensors; done; } & for i in 1 2 3 4 "
            "5 6; do " +
            quoted + "; echo \\$? >>statuses; done; rm whole; wait");
    for (const char status : read(p.folder / "statuses"))
        CHECK((status == '0' || status == '2' || status == '\n'));
}

} // namespace encoder_output_test

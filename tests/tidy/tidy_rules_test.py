#!/usr/bin/env python3
"""Shows that each tidy rule finds what it is there for, and lets correct code pass."""

import unittest

import source_scan
import tidy_rules


def complaints(path, text):
    return [what for rule in tidy_rules.ALL for _, what in rule(path, text)]


class IncludeRules(unittest.TestCase):
    def test_an_upward_include_is_found(self):
        for room, header in [("base", "net/server.h"), ("kernels", "model/spec.h"),
                             ("model", "engine/stage.h"), ("engine", "worker/head.h"),
                             ("gateway", "cli/up.h")]:
            self.assertTrue(complaints(f"{room}/a.cc", f'#include "{header}"\n'), header)

    def test_services_do_not_include_each_other(self):
        self.assertTrue(complaints("gateway/a.cc", '#include "worker/head.h"\n'))
        self.assertTrue(complaints("worker/a.cc", '#include "coordinator/placement.h"\n'))

    def test_model_takes_the_types_of_kernels_and_plain_structs_only(self):
        self.assertFalse(complaints("model/a.cc", '#include "kernels/dtype.h"\n'))
        self.assertTrue(complaints("model/a.cc", '#include "kernels/backend.h"\n'))
        self.assertFalse(complaints("model/a.cc", '#include "proto/control.h"\n'))
        self.assertTrue(complaints("model/a.cc", '#include "proto/control_codec.h"\n'))

    def test_engine_knows_no_network(self):
        self.assertTrue(complaints("engine/a.cc", '#include "net/channel.h"\n'))

    def test_downward_and_own_includes_pass(self):
        text = '#include "cli/up.h"\n#include "engine/stage.h"\n#include "base/check.h"\n'
        self.assertFalse(complaints("cli/a.cc", text))

    def test_a_commented_include_of_another_library_passes(self):
        self.assertFalse(complaints("base/a.cc", '#include "absl/status/status.h"\n'))

    def test_generated_headers_stay_at_the_edges(self):
        text = '#include "sauva/v1/stage.pb.h"\n'
        self.assertTrue(complaints("worker/head.cc", text))
        for path in ("worker/stage_service.cc", "proto/stage_codec.cc", "cli/status_client.h"):
            self.assertFalse(complaints(path, "#pragma once\n" + text), path)


class LengthRules(unittest.TestCase):
    def test_a_file_over_the_limit_is_found(self):
        limit = tidy_rules.MAX_FILE_LINES
        self.assertFalse(complaints("base/a.cc", "\n" * limit))
        self.assertTrue(complaints("base/a.cc", "\n" * (limit + 1)))

    def test_a_function_over_the_limit_is_found(self):
        def function(lines):
            return "void F(int a) {\n" + "  g();\n" * (lines - 2) + "}\n"
        limit = tidy_rules.MAX_FUNCTION_LINES
        self.assertFalse(complaints("base/a.cc", function(limit)))
        self.assertTrue(complaints("base/a.cc", function(limit + 1)))

    def test_functions_are_found_where_they_hide(self):
        def names(text):
            return [head for _, _, head in source_scan.functions(text)]
        self.assertEqual(names("namespace a {\nstruct B {\n  int F() const { return 1; }\n};\n}"),
                         ["int F() const"])
        self.assertEqual(names("template <class T>\nstruct S { T t; };\nint x[] = {1, 2};\n"), [])
        self.assertEqual(names('TEST(A, B) { const char* s = "}{"; char c = \'{\'; }\n'),
                         ["TEST(A, B)"])
        self.assertEqual(names("int A() { if (x) { y(); } return 1\'000; }\nint B() {}\n"),
                         ["int A()", "int B()"])
        self.assertEqual(names('auto s = R"x( } { )x"; void F() {}\n'), ["void F()"])

    def test_a_long_body_behind_braced_initialisers_is_found(self):
        text = "A::A() : x_{1}, y_{2} {\n" + "  g();\n" * tidy_rules.MAX_FUNCTION_LINES + "}\n"
        self.assertTrue(complaints("base/a.cc", text))

    def test_a_long_class_is_not_a_long_function(self):
        text = "class A {\n public:\n" + "  int a();\n" * tidy_rules.MAX_FUNCTION_LINES + "};\n"
        self.assertFalse(complaints("base/a.cc", text))


class WordRules(unittest.TestCase):
    def test_a_header_without_a_guard_is_found(self):
        self.assertTrue(complaints("base/a.h", "int x;\n"))
        self.assertFalse(complaints("base/a.h", "#pragma once\nint x;\n"))

    def test_words_of_the_workplace_are_found(self):
        for words in ("// see /work" + "/shared", "// in this " + "session", "# Issue" + " 12"):
            self.assertTrue(complaints("base/a.cc", words + "\n"), words)
        self.assertFalse(complaints("base/a.cc", "// the session of a request\n"))

    def test_a_conflict_marker_is_found(self):
        self.assertTrue(complaints("base/a.cc", "int x;\n" + "<" * 7 + " HEAD\n"))

    def test_a_tab_is_found(self):
        self.assertTrue(complaints("scripts/a.sh", "\techo\n"))


if __name__ == "__main__":
    unittest.main()

// A file compiled for AVX-512 must not define an inline function that other files define
// too: the linker keeps one of them, and a CPU without AVX-512 would run it.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

namespace {

std::vector<std::string> Symbols(const std::string& object) {
  std::vector<std::string> lines;
  FILE* nm = popen(("nm -C '" + object + "'").c_str(), "r");
  if (nm == nullptr) return lines;
  char line[4096];
  while (std::fgets(line, sizeof line, nm) != nullptr) lines.emplace_back(line);
  EXPECT_EQ(pclose(nm), 0) << "nm " << object;
  return lines;
}

// The type letter of a line "address letter name"; undefined symbols have no address.
char TypeOf(const std::string& line) {
  constexpr size_t kAfterAddress = 17;
  return line.size() > kAfterAddress ? line[kAfterAddress] : '?';
}

TEST(WeakSymbolsTest, FilesOfAnInstructionSetDefineNothingThatOthersMayDefine) {
  int objects = 0;
  std::string list = SAUVA_ISA_OBJECTS;  // separated by colons
  while (!list.empty()) {
    const size_t colon = list.find(':');
    const std::string object = list.substr(0, colon);
    list = colon == std::string::npos ? "" : list.substr(colon + 1);
    ++objects;
    bool has_table = false;
    for (const std::string& line : Symbols(object)) {
      const char type = TypeOf(line);
      EXPECT_TRUE(type != 'W' && type != 'V' && type != 'u') << object << ": " << line;
      has_table |= line.find("Kernels") != std::string::npos;
    }
    EXPECT_TRUE(has_table) << object << " has no kernel table: nm was misread";
  }
  EXPECT_GE(objects, 1);
}

}  // namespace

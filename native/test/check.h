#pragma once
// A test is TEST(name) { CHECK(...); }: it registers itself, main.cpp runs all or those whose name holds argv[1].
#include <cmath>
#include <cstdio>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"

namespace pg::test {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Failure {
  std::string where, what;
};

struct Register {
  Register(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

// Out of line: a test has many checks, and each would carry the building of its message.
[[noreturn]] inline void failed(const char* file, int line, std::string what) {
  throw Failure{std::string(file) + ":" + std::to_string(line), std::move(what)};
}
[[noreturn]] inline void failed(const char* file, int line, const char* what) { failed(file, line, std::string(what)); }

template <class A, class B>
void checkEqual(const A& a, const B& b, const char* textA, const char* textB, const char* file, int line) {
  if (a == b) return;
  std::ostringstream what;
  what << textA << " == " << textB << ": " << a << " != " << b;
  failed(file, line, what.str());
}

inline void checkClose(double a, double b, double tolerance, const char* text, const char* file, int line) {
  // the negation also catches NaN
  if (std::fabs(a - b) <= tolerance) return;
  std::ostringstream what;
  what.precision(9);
  what << text << ": " << a << " vs " << b << ", difference " << std::fabs(a - b) << " > " << tolerance;
  failed(file, line, what.str());
}

}  // namespace pg::test

#define TEST(name)                                               \
  static void test_##name();                                     \
  static pg::test::Register register_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(condition)                                                \
  do {                                                                  \
    if (!(condition)) pg::test::failed(__FILE__, __LINE__, #condition); \
  } while (0)
#define CHECK_EQUAL(a, b) pg::test::checkEqual(a, b, #a, #b, __FILE__, __LINE__)
#define CHECK_CLOSE(a, b, tolerance) pg::test::checkClose(a, b, tolerance, #a " ~ " #b, __FILE__, __LINE__)
// The statement must fail with this code and a message that holds `part`.
#define CHECK_FAILS(statement, expectedCode, part)                                                        \
  do {                                                                                                    \
    bool failed_ = false;                                                                                 \
    try {                                                                                                 \
      statement;                                                                                          \
    } catch (const pg::Error& e) {                                                                        \
      failed_ = true;                                                                                     \
      CHECK_EQUAL(std::string(pg::codeName(e.code())), std::string(pg::codeName(expectedCode)));          \
      if (e.message().find(part) == std::string::npos)                                                    \
        pg::test::failed(__FILE__, __LINE__, "message \"" + e.message() + "\" lacks \"" + (part) + "\""); \
    }                                                                                                     \
    CHECK(failed_&& #statement);                                                                          \
  } while (0)

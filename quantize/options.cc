#include "quantize/options.h"

#include <array>

#include "absl/strings/str_cat.h"

namespace sauva {
namespace {

constexpr std::array kMethods = {Method::kInt8, Method::kInt8Static, Method::kLlmInt8,
                                 Method::kNf4,  Method::kAwq,        Method::kGptq};

}  // namespace

const char* Name(Method method) {
  switch (method) {
    case Method::kInt8:
      return "int8";
    case Method::kInt8Static:
      return "int8-static";
    case Method::kLlmInt8:
      return "llm-int8";
    case Method::kNf4:
      return "nf4";
    case Method::kAwq:
      return "awq";
    case Method::kGptq:
      return "gptq";
  }
  return "unknown";
}

absl::StatusOr<Method> ParseMethod(const std::string& name) {
  std::string known;
  for (const Method method : kMethods) {
    if (name == Name(method)) return method;
    absl::StrAppend(&known, known.empty() ? "" : ", ", Name(method));
  }
  return absl::InvalidArgumentError(absl::StrCat("--method '", name, "'; there are ", known));
}

bool NeedsCalibration(Method method) {
  return method == Method::kInt8Static || method == Method::kAwq || method == Method::kGptq;
}

absl::Status ValidateOptions(const QuantizeOptions& options) {
  const auto refuse = [](const auto&... words) {
    return absl::InvalidArgumentError(absl::StrCat(words...));
  };
  const bool groups = options.method == Method::kAwq || options.method == Method::kGptq;
  if (groups && options.group_size != 32 && options.group_size != 64 && options.group_size != 128) {
    return refuse("--group-size ", options.group_size, "; 32, 64 and 128 are known");
  }
  if (options.method == Method::kAwq && options.bits != 4) {
    return refuse("--bits ", options.bits, "; awq has 4");
  }
  if (options.method == Method::kGptq && options.bits != 3 && options.bits != 4) {
    return refuse("--bits ", options.bits, "; gptq has 3 and 4");
  }
  if (!(options.damping > 0 && options.damping <= 1)) {
    return refuse("--damping ", options.damping, "; it lies above 0 and up to 1");
  }
  if (!(options.percentile >= 50 && options.percentile <= 100)) {
    return refuse("--percentile ", options.percentile, "; it lies from 50 to 100");
  }
  if (options.samples < 1 || options.sample_tokens < 2) {
    return refuse("--samples ", options.samples, " of --sample-tokens ", options.sample_tokens,
                  "; at least 1 of 2");
  }
  if (NeedsCalibration(options.method) && options.calibration.empty()) {
    return refuse("--calibration is missing; ", Name(options.method), " needs a text");
  }
  return absl::OkStatus();
}

}  // namespace sauva

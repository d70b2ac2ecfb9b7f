#include "quantize/quantize_model.h"

#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "quantize/calibration.h"
#include "quantize/output.h"

namespace sauva {
namespace {

// What a method asks of a matrix's sides.
struct Divisors {
  int64_t rows = 1;
  int64_t columns = 1;
};

Divisors DivisorsOf(const QuantizeOptions& options) {
  switch (options.method) {
    case Method::kNf4:
      return {.columns = 64};
    case Method::kAwq:
      return {.rows = 32, .columns = options.group_size};
    case Method::kGptq:
      return {.rows = 32, .columns = options.group_size};
    default:
      return {};
  }
}

absl::Status CheckSides(const QuantizeOptions& options, const Model& model) {
  const Divisors divisors = DivisorsOf(options);
  for (int layer = 0; layer < model.spec.num_layers(); ++layer) {
    for (const std::string& name : MatrixNames(model.spec, layer)) {
      ASSIGN_OR_RETURN(const StoredTensor tensor, model.checkpoint->Find(name));
      const bool fits =
          tensor.shape[0] % divisors.rows == 0 && tensor.shape[1] % divisors.columns == 0;
      if (fits) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is ", tensor.shape[0], " x ", tensor.shape[1], "; ",
                       Name(options.method), " needs rows in multiples of ", divisors.rows,
                       " and columns in groups of ", divisors.columns));
    }
  }
  return absl::OkStatus();
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// One layer: taken up where it is done, else made.
absl::StatusOr<LayerDone> DoLayer(const LayerJob& job, const QuantizedOutput& output) {
  const auto start = std::chrono::steady_clock::now();
  LayerDone done{.layer = job.layer, .num_layers = job.model.spec.num_layers()};
  ASSIGN_OR_RETURN(const auto found, output.ReadLayer(job.layer));
  if (found) {
    done.resumed = true;
    RETURN_IF_ERROR(PassDoneLayer(job, *found));
  } else {
    ASSIGN_OR_RETURN(const LayerResult result, QuantizeLayer(job));
    RETURN_IF_ERROR(output.WriteLayer(job.layer, result));
    done.note = absl::StrJoin(result.notes, "; ");
  }
  done.seconds = SecondsSince(start);
  return done;
}

}  // namespace

absl::Status QuantizeModel(const QuantizeOptions& options,
                           const std::function<void(const LayerDone&)>& progress) {
  RETURN_IF_ERROR(ValidateOptions(options));
  ASSIGN_OR_RETURN(const Model model, OpenModel(options.model));
  if (!model.quantization.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--model ", options.model, " is already quantized as ", model.quantization));
  }
  RETURN_IF_ERROR(CheckSides(options, model));
  ASSIGN_OR_RETURN(const SourceTensors source, SourceTensors::Open(options.model, model));
  std::vector<std::vector<TokenId>> samples;
  if (NeedsCalibration(options.method)) {
    if (options.sample_tokens > model.spec.max_context) {
      return absl::InvalidArgumentError(absl::StrCat("--sample-tokens ", options.sample_tokens,
                                                     "; the model's context is ",
                                                     model.spec.max_context));
    }
    ASSIGN_OR_RETURN(samples, ReadCalibration(model, options));
  }
  ASSIGN_OR_RETURN(const QuantizedOutput output, QuantizedOutput::Begin(options, model, source));
  std::optional<ActivationStore> hidden;
  std::optional<CalibrationState> calibration;
  if (!samples.empty()) {
    ASSIGN_OR_RETURN(
        ActivationStore store,
        ActivationStore::Create(output.partial(),
                                {.samples = static_cast<int64_t>(samples.size()),
                                 .values = int64_t{options.sample_tokens} * model.spec.hidden_size},
                                options.memory_bytes));
    hidden.emplace(std::move(store));
    calibration.emplace(CalibrationState{
        .spec = model.spec, .samples = samples, .hidden = *hidden, .threads = options.threads});
  }
  double seconds = 0;
  int made = 0;
  for (int layer = 0; layer < model.spec.num_layers(); ++layer) {
    ASSIGN_OR_RETURN(LayerDone done, DoLayer({.model = model,
                                              .options = options,
                                              .layer = layer,
                                              .calibration = calibration ? &*calibration : nullptr},
                                             output));
    if (!done.resumed) {
      seconds += done.seconds;
      ++made;
    }
    done.seconds_left = made == 0 ? 0 : seconds / made * (done.num_layers - layer - 1);
    // Else all of the model would count as this process's memory at the end.
    model.checkpoint->DropPages();
    source.DropPages();
    if (progress) progress(done);
  }
  return output.Finish();
}

}  // namespace sauva

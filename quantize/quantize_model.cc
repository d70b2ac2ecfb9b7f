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

// The samples before the first layer; `directory` is for what memory does not hold.
absl::StatusOr<CalibrationState> StateOf(const QuantizeOptions& options, const ModelSpec& spec,
                                         const std::vector<std::vector<TokenId>>& samples,
                                         const std::string& directory) {
  const ActivationStore::Shape shape = {
      .samples = static_cast<int64_t>(samples.size()),
      .values = int64_t{options.sample_tokens} * spec.hidden_size};
  const bool in_layers = options.method == Method::kGptq;
  const int64_t memory_bytes = options.memory_bytes / (in_layers ? 2 : 1);
  ASSIGN_OR_RETURN(ActivationStore hidden, ActivationStore::Create(directory, shape, memory_bytes));
  CalibrationState state = {.spec = spec,
                            .samples = samples,
                            .hidden = std::move(hidden),
                            .middle = std::nullopt,
                            .threads = options.threads};
  if (in_layers) {
    ASSIGN_OR_RETURN(ActivationStore middle,
                     ActivationStore::Create(directory, shape, memory_bytes));
    state.middle.emplace(std::move(middle));
  }
  return state;
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
  std::optional<Calibration> texts;
  if (NeedsCalibration(options.method)) {
    if (options.sample_tokens > model.spec.max_context) {
      return absl::InvalidArgumentError(absl::StrCat("--sample-tokens ", options.sample_tokens,
                                                     "; the model's context is ",
                                                     model.spec.max_context));
    }
    ASSIGN_OR_RETURN(texts, ReadCalibration(model, options));
  }
  ASSIGN_OR_RETURN(const QuantizedOutput output,
                   QuantizedOutput::Begin({.options = options,
                                           .model = model,
                                           .source = source,
                                           .calibration = texts ? &texts->record : nullptr}));
  std::optional<CalibrationState> calibration;
  if (texts) {
    ASSIGN_OR_RETURN(CalibrationState state,
                     StateOf(options, model.spec, texts->samples, output.partial()));
    calibration.emplace(std::move(state));
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

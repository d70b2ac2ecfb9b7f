#include "kernels/cuda/cuda_sampler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/scratch_bytes.h"
#include "kernels/numerics.h"

namespace sauva::cuda {
namespace {

bool CountsPrompt(const SampleRow& row) { return row.repetition_penalty != 1; }
bool CountsCompletion(const SampleRow& row) {
  return row.presence_penalty != 0 || row.frequency_penalty != 0;
}

SampleControls ControlsOf(const SampleRow& row, int vocab_size) {
  return {.temperature = row.temperature,
          .top_p = row.top_p,
          .min_p = row.min_p,
          .repetition_penalty = row.repetition_penalty,
          .presence_penalty = row.presence_penalty,
          .frequency_penalty = row.frequency_penalty,
          .uniform = PhiloxUniform(row.seed, row.sample_index, row.position),
          .top_k = row.top_k,
          .num_top = std::clamp(row.num_logprobs, 0, std::min(kMaxLogprobs, vocab_size))};
}

void Report(const SampledRow& drawn, int num_top, SampleResult& result) {
  result.token = std::max(drawn.token, 0);
  result.logprob = 0;
  result.top.clear();
  if (drawn.token < 0 || num_top == 0) return;
  const double normalizer = LogNormalizer(drawn.highest, drawn.mass);
  const auto logprob = [&](float logit) { return static_cast<float>(logit - normalizer); };
  result.logprob = logprob(drawn.logit);
  for (int i = 0; i < num_top; ++i) {
    result.top.push_back({drawn.top_tokens[i], logprob(drawn.top_logits[i])});
  }
}

}  // namespace

absl::Status CudaSampler::Reserve(Device& device, int max_sequences, int vocab_size) {
  if (vocab_size > kMostTokens) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", vocab_size,
                                                   " tokens; sampling takes up to ", kMostTokens));
  }
  device_ = &device;
  vocab_size_ = vocab_size;
  max_facts_ = MostTokenFacts(vocab_size);
  const auto reserve = [&](int64_t bytes, DeviceMemory& memory, PinnedMemory& pinned) {
    ASSIGN_OR_RETURN(memory, DeviceMemory::Allocate(device, bytes));
    ASSIGN_OR_RETURN(pinned, PinnedMemory::Allocate(device, bytes));
    return absl::OkStatus();
  };
  const int64_t rows = max_sequences;
  RETURN_IF_ERROR(reserve(rows * int64_t{sizeof(SampleControls)}, controls_, host_controls_));
  RETURN_IF_ERROR(reserve(max_facts_ * int64_t{sizeof(TokenFact)}, facts_, host_facts_));
  RETURN_IF_ERROR(reserve(rows * int64_t{sizeof(SampledRow)}, drawn_, host_drawn_));
  slots_.assign(static_cast<size_t>(vocab_size), 0);
  return absl::OkStatus();
}

void CudaSampler::Sample(const RowsView& logits, std::span<const SampleRow> rows,
                         std::span<SampleResult> results) {
  Check(static_cast<int64_t>(rows.size() * sizeof(SampleControls)) <= controls_.size_bytes(),
        "one sample a sequence");
  Check(logits.columns <= vocab_size_, "the buffers are for this vocabulary");
  RowsView left = logits;
  while (!rows.empty()) {
    size_t count = 0;
    num_facts_ = 0;
    while (count < rows.size() && Write(rows[count], left.columns, static_cast<int>(count)))
      ++count;
    Check(count > 0, "a row alone fits");
    left.rows = static_cast<int>(count);
    Launch(left, results.first(count));
    left.data += static_cast<int64_t>(count) * left.stride;
    rows = rows.subspan(count);
    results = results.subspan(count);
  }
}

bool CudaSampler::Write(const SampleRow& row, int columns, int index) {
  const int64_t first = num_facts_;
  const std::span<const TokenBias> biases = row.logit_bias;
  Check(biases.size() <= kMaxTokenBiases, "a row has a bounded number of biases");
  if (first + static_cast<int64_t>(biases.size()) > max_facts_) return false;
  SampleControls controls = ControlsOf(row, columns);
  controls.first_fact = static_cast<int32_t>(first);
  controls.num_biases = static_cast<int32_t>(biases.size());
  for (const TokenBias& bias : biases) {
    Check(bias.token >= 0 && bias.token < columns, "sampling names tokens of the vocabulary");
    host_facts_.as<TokenFact>()[num_facts_++] = {bias.token, bias.bias};
  }
  const int64_t first_count = num_facts_;
  if (!WriteCounts(row, columns)) {
    num_facts_ = first;
    return false;
  }
  controls.num_counts = static_cast<int32_t>(num_facts_ - first_count);
  host_controls_.as<SampleControls>()[index] = controls;
  return true;
}

bool CudaSampler::WriteCounts(const SampleRow& row, int columns) {
  if (!CountsPrompt(row) && !CountsCompletion(row)) return true;
  const auto prompt = static_cast<size_t>(row.num_prompt_tokens);
  Check(row.num_prompt_tokens >= 0 && prompt <= row.tokens.size(),
        "the prompt is among the known tokens");
  auto* const facts = host_facts_.as<TokenFact>();
  const int64_t first = num_facts_;
  bool fits = true;
  for (size_t i = CountsPrompt(row) ? 0 : prompt; i < row.tokens.size(); ++i) {
    const int32_t token = row.tokens[i];
    Check(token >= 0 && token < columns, "sampling names tokens of the vocabulary");
    int32_t& slot = slots_[static_cast<size_t>(token)];
    if (slot == 0) {
      fits = num_facts_ < max_facts_;
      if (!fits) break;
      facts[num_facts_++] = {token, 0};
      slot = static_cast<int32_t>(num_facts_);
    }
    if (i >= prompt) facts[slot - 1].amount += 1;
  }
  for (int64_t i = first; i < num_facts_; ++i) slots_[static_cast<size_t>(facts[i].token)] = 0;
  return fits;
}

void CudaSampler::Launch(const RowsView& logits, std::span<SampleResult> results) {
  const auto upload = [&](const DeviceMemory& to, const void* from, size_t bytes) {
    if (bytes == 0) return;
    device_->CopyToDevice(
        {.to = to.data(), .from = from, .row_bytes = static_cast<int64_t>(bytes), .rows = 1});
  };
  upload(controls_, host_controls_.as<SampleControls>(), results.size() * sizeof(SampleControls));
  upload(facts_, host_facts_.as<TokenFact>(), static_cast<size_t>(num_facts_) * sizeof(TokenFact));
  LaunchSample({.logits = logits,
                .controls = controls_.as<SampleControls>(),
                .facts = facts_.as<TokenFact>(),
                .results = drawn_.as<SampledRow>()},
               device_->stream());
  device_->CopyToHost({.to = host_drawn_.as<SampledRow>(),
                       .from = drawn_.data(),
                       .row_bytes = static_cast<int64_t>(results.size() * sizeof(SampledRow)),
                       .rows = 1});
  device_->Wait();
  for (size_t i = 0; i < results.size(); ++i) {
    Report(host_drawn_.as<SampledRow>()[i], host_controls_.as<SampleControls>()[i].num_top,
           results[i]);
  }
}

}  // namespace sauva::cuda

#include "quantize/output.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "kernels/half.h"
#include "model/json.h"
#include "model/mapped_file.h"
#include "model/safetensors_header.h"
#include "quantize/packing.h"
#include "quantize/shard_writer.h"

namespace sauva {
namespace {

constexpr char kJobFile[] = "job.json";
constexpr char kKeptHead[] = "lm_head";

// What two runs must share for one to go on with the other's files.
nlohmann::json JobJson(const OutputJob& job) {
  const QuantizeOptions& options = job.options;
  return {{"model_digest", job.model.digest},
          {"method", Name(options.method)},
          {"bits", options.bits},
          {"group_size", options.group_size},
          {"act_order", options.act_order},
          {"symmetric", options.symmetric},
          {"damping", options.damping},
          {"calibration", options.calibration},
          {"calibration_text", job.calibration ? job.calibration->Json() : ""},
          {"samples", options.samples},
          {"sample_tokens", options.sample_tokens},
          {"percentile", options.percentile}};
}

absl::Status CheckSameJob(const std::string& partial, const nlohmann::json& job) {
  const std::string path = partial + "/" + kJobFile;
  const auto file = MappedFile::Open(path);
  if (!file.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(partial, " is there and is no unfinished job; remove it first"));
  }
  ASSIGN_OR_RETURN(
      const nlohmann::json found,
      ParseJson(path, {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}));
  for (const auto& [key, value] : job.items()) {
    const nlohmann::json other = found.is_object() ? found.value(key, nlohmann::json()) : found;
    if (other == value) continue;
    return absl::FailedPreconditionError(absl::StrCat(partial, " is of another job: ", key, " was ",
                                                      ShortText(other), ", now ", ShortText(value),
                                                      "; remove it or ask for the same"));
  }
  return absl::OkStatus();
}

// Numbers by input column, as any reader must see them.
std::vector<float> NumbersOf(const QuantizedMatrix& matrix, int64_t row) {
  std::vector<float> numbers(static_cast<size_t>(matrix.columns));
  for (int64_t i = 0; i < matrix.columns; ++i) {
    const int64_t column =
        matrix.column_order.empty() ? i : matrix.column_order[static_cast<size_t>(i)];
    numbers[static_cast<size_t>(column)] = Dequantize(matrix, row, i);
  }
  return numbers;
}

absl::Status CheckSame(const std::string& name, const QuantizedMatrix& written,
                       const QuantizedMatrix& read) {
  RETURN_IF_ERROR(ValidateQuantizedMatrix(name, read));
  const bool same_activations = written.activation == read.activation &&
                                written.activation_scale == read.activation_scale &&
                                written.outlier_threshold == read.outlier_threshold;
  if (!same_activations) {
    return absl::DataLossError(absl::StrCat(name, ": activations are read back otherwise"));
  }
  for (int64_t row = 0; row < written.rows; ++row) {
    if (NumbersOf(written, row) == NumbersOf(read, row)) continue;
    return absl::DataLossError(
        absl::StrCat(name, ": row ", row, " is read back otherwise than it was written"));
  }
  return absl::OkStatus();
}

// Numbers in the type a tensor had.
std::vector<std::byte> InType(const std::vector<float>& numbers, const std::string& dtype) {
  std::vector<std::byte> bytes;
  for (const float number : numbers) {
    const uint32_t bits = std::bit_cast<uint32_t>(number);
    const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    const uint16_t half =
        dtype == "F16" ? FloatToHalf(number) : static_cast<uint16_t>(rounded >> 16);
    const auto* at = dtype == "F32" ? reinterpret_cast<const std::byte*>(&bits)
                                    : reinterpret_cast<const std::byte*>(&half);
    bytes.insert(bytes.end(), at, at + (dtype == "F32" ? sizeof bits : sizeof half));
  }
  return bytes;
}

// As the layout will give them back: NF4 scales are quantized themselves.
QuantizedMatrix AsPublished(const QuantizedMatrix& matrix, Method method) {
  QuantizedMatrix published = matrix;
  if (method != Method::kNf4) return published;
  const NestedScales nested = NestedScales::Of(matrix.scales);
  for (size_t i = 0; i < published.scales.size(); ++i) {
    published.scales[i] = nested.Value(static_cast<int64_t>(i));
  }
  return published;
}

// Bytes that the output has at least: codes, and whatever is not quantized.
int64_t LeastBytes(const QuantizeOptions& options, const Model& model,
                   const SourceTensors& source) {
  const bool bytes_each = options.method == Method::kInt8 ||
                          options.method == Method::kInt8Static ||
                          options.method == Method::kLlmInt8;
  const int bits = bytes_each ? 8 : options.method == Method::kGptq ? options.bits : 4;
  int64_t bytes = 0;
  for (int layer = 0; layer < model.spec.num_layers(); ++layer) {
    for (const std::string& name : MatrixNames(model.spec, layer)) {
      const auto tensor = model.checkpoint->Find(name);
      if (tensor.ok()) bytes += tensor->shape[0] * tensor->shape[1] * bits / 8;
    }
  }
  for (const SourceTensors::Tensor& tensor : source.rest()) {
    bytes += static_cast<int64_t>(tensor.bytes.size());
  }
  return bytes;
}

DType TypeOf(const Model& model, const std::string& name) {
  const auto tensor = model.checkpoint->Find(name);
  return tensor.ok() ? tensor->dtype : DType::kF16;
}

}  // namespace

absl::Status CheckRoom(const std::string& directory, int64_t needed_bytes) {
  std::error_code error;
  const auto space = std::filesystem::space(directory, error);
  if (error) {
    return absl::NotFoundError(absl::StrCat(directory, ": ", error.message()));
  }
  if (space.available >= static_cast<uintmax_t>(needed_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      directory, " has ", space.available, " bytes free; at least ", needed_bytes, " are needed"));
}

absl::StatusOr<QuantizedOutput> QuantizedOutput::Begin(const OutputJob& job) {
  namespace fs = std::filesystem;
  QuantizedOutput output(job);
  const std::string& out = job.options.out;
  std::error_code error;
  if (fs::exists(out, error)) {
    return absl::AlreadyExistsError(absl::StrCat("--out ", out, " is there already"));
  }
  output.config_ = QuantizationConfig(job.options, {kKeptHead});
  ASSIGN_OR_RETURN(
      output.layout_,
      ReadQuantizedLayout(
          {{"config.json", nlohmann::json{{"quantization_config", output.config_}}.dump()}}));
  const nlohmann::json described = JobJson(job);
  // An empty directory is what a kill or a full disk before the job's file left.
  if (fs::exists(output.partial_, error) && !fs::is_empty(output.partial_, error)) {
    RETURN_IF_ERROR(CheckSameJob(output.partial_, described));
    return output;
  }
  fs::create_directories(output.partial_, error);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat(output.partial_, " cannot be made: ", error.message()));
  }
  const absl::Status room =
      CheckRoom(output.partial_, LeastBytes(job.options, job.model, job.source));
  if (!room.ok()) {
    fs::remove(output.partial_, error);
    return room;
  }
  RETURN_IF_ERROR(WriteWhole(output.partial_ + "/" + kJobFile, described.dump(1) + "\n"));
  return output;
}

std::string QuantizedOutput::ShardName(int shard) const {
  return absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, model_.spec.num_layers() + 1);
}

absl::StatusOr<std::optional<std::map<std::string, QuantizedMatrix>>> QuantizedOutput::ReadLayer(
    int layer) const {
  std::map<std::string, QuantizedMatrix> matrices;
  std::error_code error;
  const std::string path = ShardPath(layer);
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  ASSIGN_OR_RETURN(const SafetensorsHeader header, ParseSafetensorsHeader(path, file.bytes()));
  for (const std::string& name : MatrixNames(model_.spec, layer)) {
    QuantizedParts parts{.module = source_.module(name), .by_suffix = {}};
    const std::string prefix = parts.module + ".";
    for (const SafetensorsEntry& entry : header.entries) {
      if (!entry.name.starts_with(prefix) || entry.name == prefix + "bias") continue;
      parts.by_suffix[entry.name.substr(prefix.size())] = {
          entry.dtype, entry.shape, file.bytes().subspan(entry.begin, entry.end - entry.begin)};
    }
    ASSIGN_OR_RETURN(const StoredTensor tensor, model_.checkpoint->Find(name));
    ASSIGN_OR_RETURN(
        matrices[name],
        layout_->Read(parts, {.rows = tensor.shape[0], .columns = tensor.shape[1]}, {}));
  }
  return matrices;
}

absl::Status QuantizedOutput::WriteLayer(int layer, const LayerResult& result) const {
  std::vector<ShardTensor> tensors;
  for (const SourceTensors::Tensor& tensor : source_.layer(layer)) {
    const auto matrix = result.matrices.find(tensor.canonical);
    if (matrix != result.matrices.end()) {
      for (ShardTensor& part :
           PackMatrix(matrix->second, {.method = options_.method,
                                      .module = source_.module(tensor.canonical),
                                      .float_type = TypeOf(model_, tensor.canonical)})) {
        tensors.push_back(std::move(part));
      }
      continue;
    }
    ShardTensor copy{tensor.name, tensor.dtype, tensor.shape, {}, tensor.bytes};
    const auto numbers = result.numbers.find(tensor.canonical);
    if (numbers != result.numbers.end()) copy.own = InType(numbers->second, tensor.dtype);
    tensors.push_back(std::move(copy));
  }
  RETURN_IF_ERROR(WriteShard(ShardPath(layer), tensors));
  ASSIGN_OR_RETURN(const auto read, ReadLayer(layer));
  for (const auto& [name, matrix] : result.matrices) {
    RETURN_IF_ERROR(CheckSame(name, AsPublished(matrix, options_.method), read->at(name)));
  }
  return absl::OkStatus();
}

absl::Status QuantizedOutput::WriteIndex() const {
  nlohmann::json weight_map = nlohmann::json::object();
  uint64_t total = 0;
  for (int shard = 0; shard <= model_.spec.num_layers(); ++shard) {
    ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(ShardPath(shard)));
    ASSIGN_OR_RETURN(const SafetensorsHeader header,
                     ParseSafetensorsHeader(ShardPath(shard), file.bytes()));
    for (const SafetensorsEntry& entry : header.entries) {
      weight_map[entry.name] = ShardName(shard);
      total += entry.end - entry.begin;
    }
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  return WriteWhole(partial_ + "/model.safetensors.index.json", index.dump(1) + "\n");
}

absl::Status QuantizedOutput::CopyFiles() const {
  for (const auto& [name, content] : model_.files) {
    if (name == "config.json") continue;
    RETURN_IF_ERROR(WriteWhole(partial_ + "/" + name, content));
  }
  if (calibration_ != nullptr) {
    RETURN_IF_ERROR(
        WriteWhole(partial_ + "/" + CalibrationRecord::kFileName, calibration_->Json()));
  }
  ASSIGN_OR_RETURN(nlohmann::json config, ParseJson("config.json", model_.files.at("config.json")));
  config["quantization_config"] = config_;
  return WriteWhole(partial_ + "/config.json", config.dump(1) + "\n");
}

absl::Status QuantizedOutput::Finish() const {
  std::vector<ShardTensor> rest;
  for (const SourceTensors::Tensor& tensor : source_.rest()) {
    rest.push_back({tensor.name, tensor.dtype, tensor.shape, {}, tensor.bytes});
  }
  RETURN_IF_ERROR(WriteShard(ShardPath(model_.spec.num_layers()), rest));
  RETURN_IF_ERROR(WriteIndex());
  RETURN_IF_ERROR(CopyFiles());
  ASSIGN_OR_RETURN(const Model whole, OpenModel(partial_));
  std::error_code error;
  // In this order a kill in between leaves either a job that can go on or a whole checkpoint.
  std::filesystem::rename(partial_, options_.out, error);
  if (!error) std::filesystem::remove(options_.out + "/" + kJobFile, error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(partial_, " cannot become ", options_.out, ": ", error.message()));
}

}  // namespace sauva

#pragma once

namespace sauva::cuda {

// Whether this build's kernels run on the current device.
bool HasCodeForThisDevice();

// Bytes per second of reading, and multiplications and additions per second: in f32, and in
// matrix instructions of f16 and int8. Measured on the current device in about 0.1 s with
// 256 MiB, or half of what is free.
struct DeviceRates {
  double read_bytes_per_second = 0;
  double operations_per_second = 0;
  double f16_operations_per_second = 0;
  double int8_operations_per_second = 0;
};
DeviceRates MeasureDeviceRates();

}  // namespace sauva::cuda

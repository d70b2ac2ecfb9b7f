#pragma once

// Sizes of steps rounded up to few, so that what is recorded for one serves many: 1, 2, 4, 8
// and so on, and the largest size itself.
namespace sauva::cuda {

// The smallest bucket that holds `size`, which is from 0 to `most`; 0 has none but 0.
constexpr int BucketOf(int size, int most) {
  if (size == 0) return 0;
  int bucket = 1;
  while (bucket < size) bucket = bucket > most / 2 ? most : 2 * bucket;
  return bucket;
}

// The place of that bucket among all that there are, from 0. `size` is above 0.
constexpr int BucketIndex(int size, int most) {
  int index = 0;
  for (int bucket = 1; bucket < size; ++index) bucket = bucket > most / 2 ? most : 2 * bucket;
  return index;
}

constexpr int NumBuckets(int most) { return BucketIndex(most, most) + 1; }

}  // namespace sauva::cuda

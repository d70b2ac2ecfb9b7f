#pragma once

#include <cstddef>  // __GLIBC__, whose loader can choose

// Before a function: compiled for several instruction sets, of which the loader takes the best that
// this CPU has. For loops of plain arithmetic, which is the same on all of them (nothing contracts
// or reorders it). Sanitizers run before a loader's choice would be made, so they have none.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SAUVA_VECTOR_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SAUVA_VECTOR_CLONES
#endif

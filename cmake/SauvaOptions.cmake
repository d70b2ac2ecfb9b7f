# Compiler settings and build options shared by every room.

option(SAUVA_BUILD_TESTS "Build the tests" ON)
# A build tree from before there was a CUDA backend goes on without it.
if(DEFINED CACHE{SAUVA_SANITIZE} AND NOT DEFINED CACHE{SAUVA_CUDA_ARCHITECTURES}
   AND "$CACHE{SAUVA_CUDA}" STREQUAL "AUTO")
  set(SAUVA_CUDA "OFF" CACHE STRING "" FORCE)
endif()
set(SAUVA_CUDA "OFF" CACHE STRING "CUDA backend: AUTO (when nvcc is found), ON or OFF")
set(SAUVA_CUDA_ARCHITECTURES "75;80;86;89;90" CACHE STRING "Compute capabilities to compile for")
option(SAUVA_STATIC_RPC "Link gRPC, Protobuf and Abseil statically" OFF)
set(SAUVA_SANITIZE "" CACHE STRING "Sanitizers, as in -fsanitize=")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
# Our invariants are Check(), always on; -O2 with debug info only where it is asked for.
set(CMAKE_CXX_FLAGS_RELEASE "-O2")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")

# One meaning of float arithmetic in every file: no contraction, no reordering.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>
                    $<$<COMPILE_LANGUAGE:CXX>:-fno-fast-math>)

if(SAUVA_SANITIZE)
  add_compile_options(-fsanitize=${SAUVA_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SAUVA_SANITIZE})
endif()

find_program(SAUVA_CCACHE ccache)
if(SAUVA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SAUVA_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${SAUVA_CCACHE})
endif()
find_program(SAUVA_MOLD mold)
if(SAUVA_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

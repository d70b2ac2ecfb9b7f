# sauva_library(NAME SOURCES… DEPS…), sauva_binary(…), sauva_test(…): the three kinds of target.

set(SAUVA_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
    -Wno-missing-field-initializers -Werror)  # designated initialisers leave defaults out

if(SAUVA_SANITIZE)
  # Instrumented code makes GCC 12 see uninitialised members in moved std::variants.
  list(APPEND SAUVA_WARNINGS -Wno-maybe-uninitialized)
endif()

function(sauva_common target)
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${SAUVA_WARNINGS}>)
endfunction()

function(sauva_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  sauva_common(${name})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
endfunction()

function(sauva_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  sauva_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
endfunction()

# One test program; ctest runs it whole. LABELS as ctest's; TIMEOUT in seconds.
function(sauva_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  sauva_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock_main)
  target_compile_definitions(${name} PRIVATE SAUVA_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                             SAUVA_BINARY_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(SAUVA_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 4")  # sanitized code is that much slower
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

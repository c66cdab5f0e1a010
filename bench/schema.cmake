# SPDX-License-Identifier: Apache-2.0
# The descriptor set that a device of the benchmark sends with its hello, as a C array. The files go
# in the order in which devices send them: their own, then descriptor.proto, then mir.proto. Sets
# are merged by putting them behind one another, which is what a repeated field means on the wire.
# Runs in two roles: included by CMakeLists.txt, and as the script that writes the array.
if(CMAKE_SCRIPT_MODE_FILE)
  set(hex "")
  foreach(part ${parts})
    file(READ ${part} bytes HEX)
    string(APPEND hex ${bytes})
  endforeach()
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," body "${hex}")
  string(REGEX REPLACE "(................................................................................)"
    "\\1\n    " body "${body}")
  string(LENGTH "${hex}" digits)
  math(EXPR size "${digits} / 2")
  file(WRITE ${output} "/* SPDX-License-Identifier: Apache-2.0 */
/* Generated from bench.proto. */
#include \"mir_bench_api.h\"

const size_t mir_bench_schema_size = ${size};
const uint8_t mir_bench_schema[] = {
    ${body}
};
")
  return()
endif()

set(bench_parts)
foreach(pair bench=bench.proto descriptor=google/protobuf/descriptor.proto mir=mir/device/v1/mir.proto)
  string(REPLACE "=" ";" pair ${pair})
  list(GET pair 0 name)
  list(GET pair 1 file)
  set(part ${CMAKE_CURRENT_BINARY_DIR}/${name}.set)
  add_custom_command(OUTPUT ${part}
    COMMAND ${PROTOC} -I ${CMAKE_CURRENT_SOURCE_DIR} -I ${PROJECT_SOURCE_DIR}/proto/pb -I /usr/include
      --descriptor_set_out=${part} ${file}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/bench.proto
      ${PROJECT_SOURCE_DIR}/proto/pb/mir/device/v1/mir.proto
    VERBATIM)
  list(APPEND bench_parts ${part})
endforeach()
set(bench_generated ${CMAKE_CURRENT_BINARY_DIR}/bench_schema.c)
add_custom_command(OUTPUT ${bench_generated}
  COMMAND ${CMAKE_COMMAND} "-Dparts=${bench_parts}" -Doutput=${bench_generated}
    -P ${CMAKE_CURRENT_LIST_DIR}/schema.cmake
  DEPENDS ${bench_parts} ${CMAKE_CURRENT_LIST_DIR}/schema.cmake
  VERBATIM)
set_source_files_properties(${bench_generated} PROPERTIES
  INCLUDE_DIRECTORIES ${CMAKE_CURRENT_SOURCE_DIR})

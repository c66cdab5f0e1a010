# SPDX-License-Identifier: Apache-2.0
# mir_device_schema(target file.proto…): makes the messages of a device usable by `target`.
#
# For each file, which is relative to the current source folder:
#   <stem>.pb-c.h and .c  what protoc-c generates
#   <stem>_schema.h       declares `extern const mir_view <stem>_schema;`: the serialized
#                         FileDescriptorSet of the file and its imports, for mir_device_options
# A file may import "mir/device/v1/mir.proto", google/protobuf/*.proto and its neighbours.
find_program(PROTOC_C protoc-c REQUIRED)
find_program(PROTOC protoc REQUIRED)

# mir_device_embed(OUT symbol proto SEARCH folder… DEPENDS file…): <OUT>/<symbol>.c and .h
function(mir_device_embed out symbol proto)
  cmake_parse_arguments(ARG "" "" "SEARCH;DEPENDS" ${ARGN})
  set(script ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/mir_device_embed.cmake)
  set(search ${ARG_SEARCH})
  list(TRANSFORM search PREPEND -I)
  add_custom_command(OUTPUT ${out}/${symbol}.c ${out}/${symbol}.h
    COMMAND ${PROTOC} ${search} --include_imports --descriptor_set_out=${out}/${symbol}.fds ${proto}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${out}/${symbol}.fds -DOUTPUT=${out}/${symbol}
      -DSYMBOL=${symbol} -P ${script}
    DEPENDS ${ARG_DEPENDS} ${script} VERBATIM)
endfunction()

function(mir_device_schema target)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${target}_schema)
  get_filename_component(options ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../../proto/pb ABSOLUTE)
  set(search ${CMAKE_CURRENT_SOURCE_DIR} ${options} /usr/include)
  foreach(file ${ARGN})
    string(REGEX REPLACE "\\.proto$" "" stem ${file})
    get_filename_component(name ${stem} NAME)
    get_filename_component(folder ${out}/${stem} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    list(TRANSFORM search PREPEND -I OUTPUT_VARIABLE flags)
    set(input ${CMAKE_CURRENT_SOURCE_DIR}/${file})
    set(depends ${input} ${options}/mir/device/v1/mir.proto)
    add_custom_command(OUTPUT ${out}/${stem}.pb-c.c ${out}/${stem}.pb-c.h
      COMMAND ${PROTOC_C} ${flags} --c_out=${out} ${file}
      DEPENDS ${depends} VERBATIM)
    mir_device_embed(${folder} ${name}_schema ${file} SEARCH ${search} DEPENDS ${depends})
    target_sources(${target} PRIVATE ${out}/${stem}.pb-c.c ${folder}/${name}_schema.c
      ${out}/${stem}.pb-c.h ${folder}/${name}_schema.h)
    target_include_directories(${target} SYSTEM PUBLIC ${folder})
  endforeach()
  target_include_directories(${target} SYSTEM PUBLIC ${out})
endfunction()

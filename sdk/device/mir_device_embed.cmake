# SPDX-License-Identifier: Apache-2.0
# cmake -DINPUT=file -DOUTPUT=path-without-extension -DSYMBOL=name -P mir_device_embed.cmake
file(READ ${INPUT} hex HEX)
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
string(TOUPPER ${SYMBOL} guard)
file(WRITE ${OUTPUT}.h "/* Generated. */
#ifndef ${guard}_H
#define ${guard}_H
#include \"mir_view.h\"
extern const mir_view ${SYMBOL};
#endif
")
file(WRITE ${OUTPUT}.c "/* Generated. */
#include \"${SYMBOL}.h\"
static const uint8_t bytes[] = {
${hex}};
const mir_view ${SYMBOL} = {bytes, sizeof bytes};
")

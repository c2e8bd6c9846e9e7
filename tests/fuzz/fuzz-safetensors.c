/* tests/fuzz/fuzz-safetensors.c: libFuzzer target of the safetensors reader; input that
 * starts with '{' is taken for an index. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/consume.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  if (size > 0 && data[0] == '{')
    consume_index (data, size);
  else
    consume_safetensors (data, size);
  return 0;
}

/* tests/fuzz/fuzz-parquet.c: libFuzzer target of the parquet reader.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/consume.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  consume_parquet (data, size, 100);
  return 0;
}

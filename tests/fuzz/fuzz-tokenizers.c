/* tests/fuzz/fuzz-tokenizers.c: libFuzzer target of the tokenisers.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdint.h>
#include <stdlib.h>

#include "tests/fuzz/consume-tokenizers.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
int LLVMFuzzerInitialize (int *argc, char ***argv);

static Consumer consumer;

static void
clean_up (void)
{
  consumer_clear (&consumer);
}

int
LLVMFuzzerInitialize (int *argc, char ***argv)
{
  consumer_init (&consumer, FUZZ_MODEL);
  atexit (clean_up);
  return 0;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  consume_for_tokenizers (&consumer, data, size);
  return 0;
}

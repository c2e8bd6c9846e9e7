/* tests/fuzz/fuzz-image.c: libFuzzer target of the picture decoders.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdint.h>

#include "tests/fuzz/consume-image.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  consume_image (data, size);
  if (flux_image_sniff (data, size) == FLUX_IMAGE_FORMAT_PNG) {
    guint8 *copy = g_memdup2 (data, size);

    consume_fix_png (copy, size);
    consume_image (copy, size);
    g_free (copy);
  }
  flux_image_orientation_from_exif (data, size);
  flux_image_orientation_from_xmp (data, size);
  return 0;
}

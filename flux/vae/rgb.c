/* flux/vae/rgb.c: pictures between bytes and floats. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/vae/vae.h"

#include <math.h>

void
flux_vae_image_to_rgb (const float *image, int width, int height, guint8 *rgb, int stride)
{
  gsize plane = (gsize)width * (gsize)height;

  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++)
      for (int c = 0; c < 3; c++) {
        float v = image[(gsize)c * plane + (gsize)y * (gsize)width + (gsize)x];
        v = v / 2.0f + 0.5f;
        v = v > 0.0f ? v : 0.0f; /* NaN too: black */
        v = v < 1.0f ? v : 1.0f;
        /* Half to even in the default rounding mode, like numpy.round. */
        rgb[(gsize)y * (gsize)stride + 3 * (gsize)x + (gsize)c] =
            (guint8)rintf (v * 255.0f);
      }
}

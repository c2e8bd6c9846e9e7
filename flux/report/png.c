/* flux/report/png.c: a picture as PNG. SPDX-License-Identifier: LGPL-2.1-or-later */
#include <png.h>
#include <string.h>

#include "flux/report/report-private.h"

GBytes *
flux_report_png (const FluxReportPicture *p, GError **error)
{
  png_image image;
  png_alloc_size_t size = 0;
  guint8 *bytes = NULL;

  memset (&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  image.width = p->width;
  image.height = p->height;
  image.format = PNG_FORMAT_RGB;
  /* Once for the size, once for the bytes. */
  if (png_image_write_to_memory (
          &image, NULL, &size, 0, p->rgb, (png_int_32)p->stride, NULL) != 0)
    bytes = g_try_malloc (size);
  if (bytes == NULL || png_image_write_to_memory (&image, bytes, &size, 0, p->rgb,
                           (png_int_32)p->stride, NULL) == 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "A sample picture of %ux%u pixels could not be written as PNG: %s.", p->width,
        p->height, image.message[0] != '\0' ? image.message : "memory is short");
    png_image_free (&image);
    g_free (bytes);
    return NULL;
  }
  return g_bytes_new_take (bytes, size);
}

/* flux/image/image-private.h: what the three decoders share. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include "flux/image/image.h"

G_BEGIN_DECLS

/* pixels (and nothing else) allocated and zeroed; NULL and an error when the size is out
 * of bounds or memory is short. */
FluxImage *flux_image_new (FluxImageFormat format, FluxImageMode mode, guint64 width,
    guint64 height, const gchar *name, guint64 max_pixels, GError **error);

/* The decoders; image.h has the contract. */
FluxImage *flux_image_decode_png (const guint8 *data, gsize size, const gchar *name,
    guint64 max_pixels, GError **error);
FluxImage *flux_image_decode_jpeg (const guint8 *data, gsize size, const gchar *name,
    guint64 max_pixels, GError **error);
FluxImage *flux_image_decode_webp (const guint8 *data, gsize size, const gchar *name,
    guint64 max_pixels, GError **error);

/* FALSE and an error when a picture of this size is refused. */
gboolean flux_image_check_size (
    guint64 width, guint64 height, const gchar *name, guint64 max_pixels, GError **error);

/* exif first; xmp when that has none. Either may be NULL. */
void flux_image_set_orientation (FluxImage *self, const guint8 *exif, gsize exif_size,
    const guint8 *xmp, gsize xmp_size);

G_END_DECLS

/* flux/image/resample.h: PIL's antialiased bilinear resampling. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* The part [y, y + crop_height) x [x, x + crop_width) of the picture src [height, width,
 * 3] scaled to scaled_width x scaled_height. Bit-equal to
 * image.resize ((scaled_width, scaled_height), BILINEAR).crop (...) of Pillow 13.0
 * (src/libImaging/Resample.c): a triangle filter as wide as the larger of the two pixel
 * sizes, weights in 22-bit fixed point, rows first, 8 bits in between. Strides are in
 * bytes. FALSE when memory is short or the rectangle is not inside the scaled picture. */
gboolean flux_image_resample (const guint8 *src, gint width, gint height, gsize stride,
    gint scaled_width, gint scaled_height, gint x, gint y, gint crop_width,
    gint crop_height, guint8 *dst, gsize dst_stride);

G_END_DECLS

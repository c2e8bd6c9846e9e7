/* flux/image/webp.c: WebP through libwebp's animation decoder, which PIL uses for still
 * pictures as well. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/image/image-private.h"

#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "flux/error.h"

static void
set_damaged (GError **error, const gchar *name, const gchar *what)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is a damaged WebP (%s): replace or remove it.", name, what);
}

static void
find_orientation (FluxImage *self, WebPAnimDecoder *decoder)
{
  const WebPDemuxer *demuxer = WebPAnimDecoderGetDemuxer (decoder);
  WebPChunkIterator exif = {0}, xmp = {0};
  gboolean has_exif = WebPDemuxGetChunk (demuxer, "EXIF", 1, &exif) != 0;
  gboolean has_xmp = WebPDemuxGetChunk (demuxer, "XMP ", 1, &xmp) != 0;

  flux_image_set_orientation (self, has_exif ? exif.chunk.bytes : NULL, exif.chunk.size,
      has_xmp ? xmp.chunk.bytes : NULL, xmp.chunk.size);
  WebPDemuxReleaseChunkIterator (&exif);
  WebPDemuxReleaseChunkIterator (&xmp);
}

/* rgba [pixels, 4] into the image's mode. */
static void
copy_pixels (FluxImage *self, const guint8 *rgba)
{
  gsize n = (gsize)self->width * self->height;

  if (self->mode == FLUX_IMAGE_RGBA) {
    memcpy (self->pixels, rgba, 4 * n);
    return;
  }
  for (gsize i = 0; i < n; i++)
    memcpy (self->pixels + 3 * i, rgba + 4 * i, 3);
}

FluxImage *
flux_image_decode_webp (
    const guint8 *data, gsize size, const gchar *name, guint64 max_pixels, GError **error)
{
  const WebPData file = {data, size};
  WebPBitstreamFeatures features;
  WebPAnimDecoder *decoder = NULL;
  WebPAnimInfo info;
  FluxImage *image = NULL;
  guint8 *rgba;
  int timestamp;

  if (WebPGetFeatures (data, size, &features) != VP8_STATUS_OK) {
    set_damaged (error, name, "its header");
    return NULL;
  }
  /* Before the decoder allocates its canvas. */
  if (!flux_image_check_size (features.width, features.height, name, max_pixels, error))
    return NULL;
  decoder = WebPAnimDecoderNew (&file, NULL);
  if (decoder == NULL || !WebPAnimDecoderGetInfo (decoder, &info)) {
    set_damaged (error, name, "its structure, or it ends too early");
  } else if (info.canvas_width != (guint)features.width ||
             info.canvas_height != (guint)features.height) {
    set_damaged (error, name, "two sizes");
  } else if (!WebPAnimDecoderGetNext (decoder, &rgba, &timestamp)) {
    set_damaged (error, name, "its pixels");
  } else {
    image = flux_image_new (FLUX_IMAGE_FORMAT_WEBP,
        features.has_alpha ? FLUX_IMAGE_RGBA : FLUX_IMAGE_RGB, info.canvas_width,
        info.canvas_height, name, max_pixels, error);
    if (image != NULL) {
      image->has_alpha = features.has_alpha;
      copy_pixels (image, rgba);
      find_orientation (image, decoder);
    }
  }
  if (decoder != NULL)
    WebPAnimDecoderDelete (decoder);
  return image;
}

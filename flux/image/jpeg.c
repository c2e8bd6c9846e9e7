/* flux/image/jpeg.c: JPEG through libjpeg-turbo with its default arithmetic (the accurate
 * integer transform, smooth chroma), which is also PIL's. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/image/image-private.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "flux/error.h"

/* A file of a few kilobytes can ask for thousands of passes over the whole picture; real
 * progressive files have about ten. */
enum { MAX_SCANS = 500 };

typedef struct {
  struct jpeg_decompress_struct cinfo;
  struct jpeg_error_mgr manager;
  struct jpeg_progress_mgr progress;
  jmp_buf jump;
  FluxImage *image;
  gchar message[JMSG_LENGTH_MAX], warning[JMSG_LENGTH_MAX];
} JpegReader;

static void
fail (JpegReader *r, const char *message)
{
  g_strlcpy (r->message, message, sizeof r->message);
  longjmp (r->jump, 1);
}

static void
on_error (j_common_ptr cinfo)
{
  JpegReader *r = cinfo->client_data;

  cinfo->err->format_message (cinfo, r->message);
  longjmp (r->jump, 1);
}

static void
on_message (j_common_ptr cinfo, int level)
{
  JpegReader *r = cinfo->client_data;

  if (level >= 0)
    return;
  /* The memory source makes up an end marker; PIL refuses such a file, and so do we. */
  if (cinfo->err->msg_code == JWRN_JPEG_EOF)
    fail (r, "the file ends too early");
  if (cinfo->err->num_warnings++ == 0)
    cinfo->err->format_message (cinfo, r->warning);
}

static void
on_progress (j_common_ptr cinfo)
{
  JpegReader *r = cinfo->client_data;

  if (r->cinfo.input_scan_number > MAX_SCANS)
    fail (r, "it has more than 500 scans");
}

static gboolean
read_header (JpegReader *r, const guint8 *data, gsize size, const gchar *name,
    guint64 max_pixels, GError **error)
{
  struct jpeg_decompress_struct *cinfo = &r->cinfo;
  FluxImageMode mode = FLUX_IMAGE_RGB;

  jpeg_mem_src (cinfo, data, size);
  jpeg_save_markers (cinfo, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header (cinfo, TRUE);
  switch (cinfo->num_components) {
    case 1:
      mode = FLUX_IMAGE_L;
      cinfo->out_color_space = JCS_GRAYSCALE;
      break;
    case 3:
      cinfo->out_color_space = JCS_RGB;
      break;
    case 4:
      mode = FLUX_IMAGE_CMYK;
      cinfo->out_color_space = JCS_CMYK;
      break;
    default:
      fail (r, "it has neither 1, 3 nor 4 colour components");
  }
  r->image = flux_image_new (FLUX_IMAGE_FORMAT_JPEG, mode, cinfo->image_width,
      cinfo->image_height, name, max_pixels, error);
  return r->image != NULL;
}

static void
read_rows (JpegReader *r)
{
  gsize stride = r->image->width * flux_image_pixel_size (r->image->mode);

  jpeg_start_decompress (&r->cinfo);
  while (r->cinfo.output_scanline < r->cinfo.output_height) {
    guint8 *row = r->image->pixels + r->cinfo.output_scanline * stride;
    JSAMPROW rows[1] = {row};

    jpeg_read_scanlines (&r->cinfo, rows, 1);
    if (r->image->mode == FLUX_IMAGE_CMYK)
      for (gsize i = 0; i < stride; i++)
        row[i] = 255 - row[i];
  }
}

/* PIL joins the pieces of an EXIF block and takes the last XMP packet. */
static void
find_orientation (JpegReader *r)
{
  static const char exif_name[6] = "Exif\0",
                    xmp_name[29] = "http://ns.adobe.com/xap/1.0/";
  GByteArray *exif = g_byte_array_new ();
  const guint8 *xmp = NULL;
  gsize xmp_size = 0;

  for (jpeg_saved_marker_ptr m = r->cinfo.marker_list; m != NULL; m = m->next) {
    if (m->data_length >= 6 && memcmp (m->data, exif_name, 6) == 0) {
      g_byte_array_append (exif, m->data + 6, m->data_length - 6);
    } else if (m->data_length >= 29 && memcmp (m->data, xmp_name, 29) == 0) {
      xmp = m->data + 29;
      xmp_size = m->data_length - 29;
    }
  }
  flux_image_set_orientation (r->image, exif->data, exif->len, xmp, xmp_size);
  g_byte_array_unref (exif);
}

/* Everything that may jump. */
static gboolean
read_all (JpegReader *r, const guint8 *data, gsize size, const gchar *name,
    guint64 max_pixels, GError **error)
{
  if (setjmp (r->jump) != 0)
    return FALSE;
  jpeg_create_decompress (&r->cinfo);
  r->cinfo.progress = &r->progress;
  if (!read_header (r, data, size, name, max_pixels, error))
    return FALSE;
  read_rows (r);
  return TRUE;
}

FluxImage *
flux_image_decode_jpeg (
    const guint8 *data, gsize size, const gchar *name, guint64 max_pixels, GError **error)
{
  JpegReader *r = g_new0 (JpegReader, 1);
  FluxImage *image = NULL;
  GError *local = NULL;

  r->cinfo.err = jpeg_std_error (&r->manager);
  r->manager.error_exit = on_error;
  r->manager.emit_message = on_message;
  r->progress.progress_monitor = on_progress;
  r->cinfo.client_data = r;
  if (read_all (r, data, size, name, max_pixels, &local)) {
    find_orientation (r);
    image = g_steal_pointer (&r->image);
    if (r->warning[0] != '\0')
      image->warning = g_strdup (r->warning);
  } else if (local == NULL) {
    g_set_error (&local, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is a damaged JPEG (%s): replace or remove it.", name, r->message);
  }
  if (local != NULL)
    g_propagate_error (error, local);
  jpeg_destroy_decompress (&r->cinfo);
  flux_image_free (r->image);
  g_free (r);
  return image;
}

/* flux/files/parquet-codec.c: decompression of pages. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <gio/gio.h>
#include <snappy-c.h>
#include <string.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "flux/files/parquet-private.h"

static const char *
gunzip (const guint8 *in, gsize length, guint8 *out, gsize n)
{
  /* The format's text says gzip; readers take zlib's own framing too. */
  gboolean gzip = length >= 2 && in[0] == 0x1f && in[1] == 0x8b;
  g_autoptr (GZlibDecompressor) z = g_zlib_decompressor_new (
      gzip ? G_ZLIB_COMPRESSOR_FORMAT_GZIP : G_ZLIB_COMPRESSOR_FORMAT_ZLIB);
  GConverterResult result = G_CONVERTER_CONVERTED;
  gsize got = 0;

  while (result != G_CONVERTER_FINISHED) {
    guint8 spare;
    gsize used, made;

    /* The end may come after the last byte: it needs room to be found. */
    result =
        g_converter_convert (G_CONVERTER (z), in, length, got < n ? out + got : &spare,
            got < n ? n - got : 1, G_CONVERTER_INPUT_AT_END, &used, &made, NULL);
    if (result == G_CONVERTER_ERROR)
      return "its gzip data is corrupt";
    if (got + made > n)
      return "it holds more than its header says";
    in += used;
    length -= used;
    got += made;
  }
  return got == n ? NULL : "it holds less than its header says";
}

const char *
flux_parquet_decompress (gint codec, const guint8 *in, gsize length, guint8 *out, gsize n)
{
  gsize got;

  switch (codec) {
    case PARQUET_UNCOMPRESSED:
      if (length != n)
        return "its two sizes differ though it is not compressed";
      memcpy (out, in, n);
      return NULL;
    case PARQUET_SNAPPY:
      if (snappy_uncompressed_length ((const char *)in, length, &got) != SNAPPY_OK)
        return "its snappy data is corrupt";
      if (got != n)
        return "it does not hold what its header says";
      if (snappy_uncompress ((const char *)in, length, (char *)out, &got) != SNAPPY_OK)
        return "its snappy data is corrupt";
      return NULL;
    case PARQUET_GZIP:
      return gunzip (in, length, out, n);
    case PARQUET_ZSTD:
#ifdef HAVE_ZSTD
      got = ZSTD_decompress (out, n, in, length);
      if (ZSTD_isError (got))
        return "its zstd data is corrupt";
      return got == n ? NULL : "it does not hold what its header says";
#else
      return "it is compressed with zstd, which this build does not read (rebuild with "
             "libzstd)";
#endif
    case 3:
      return "it is compressed with lzo, which is not read";
    case 4:
      return "it is compressed with brotli, which is not read";
    case 5:
    case 7:
      return "it is compressed with lz4, which is not read";
    default:
      return "its compression is unknown";
  }
}

/* tests/flux/encode-lines.c: token ids of strings, for tests/reference/make_tokens.py.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * encode-lines clip|t5 FOLDER MAX_LENGTH <strings in hex, one a line */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flux/text/clip-tokenizer.h"
#include "flux/text/t5-tokenizer.h"

static GByteArray *
from_hex (const char *hex)
{
  GByteArray *bytes = g_byte_array_new ();

  for (; g_ascii_isxdigit (hex[0]) && g_ascii_isxdigit (hex[1]); hex += 2) {
    guint8 b = g_ascii_xdigit_value (hex[0]) << 4 | g_ascii_xdigit_value (hex[1]);

    g_byte_array_append (bytes, &b, 1);
  }
  return bytes;
}

int
main (int argc, char **argv)
{
  g_autoptr (FluxClipTokenizer) clip = NULL;
  g_autoptr (FluxT5Tokenizer) t5 = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree gint32 *ids = NULL;
  char *line = NULL;
  size_t size = 0;
  guint n;

  if (argc != 4) {
    fprintf (stderr, "usage: encode-lines clip|t5 FOLDER MAX_LENGTH\n");
    return 2;
  }
  n = (guint)atoi (argv[3]);
  ids = g_new (gint32, n + 1);
  if (strcmp (argv[1], "clip") == 0)
    clip = flux_clip_tokenizer_new (argv[2], &error);
  else
    t5 = flux_t5_tokenizer_new (argv[2], &error);
  while (error == NULL && getline (&line, &size, stdin) >= 0) {
    g_autoptr (GByteArray) text = from_hex (line);
    const char *data = text->len > 0 ? (const char *)text->data : "";
    gboolean ok =
        clip != NULL
            ? flux_clip_tokenizer_encode (clip, data, text->len, n, ids, NULL, &error)
            : flux_t5_tokenizer_encode (t5, data, text->len, n, ids, NULL, &error);

    for (guint i = 0; ok && i < n; i++)
      printf ("%d ", ids[i]);
    printf ("\n");
  }
  free (line);
  if (error != NULL)
    fprintf (stderr, "%s\n", error->message);
  return error != NULL;
}
